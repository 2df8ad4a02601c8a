//! The only unsafe code of this library: pages for keys, a heap that wipes what is given back, and shared libraries that are loaded
//! before the filter of calls. `tests/house` finds any other.
//!
//! All three are here because no safe call exists: rustix and memmap2 have no memfd_secret, a mapping of a file is unsafe in both, and
//! so are the trait of an allocator and dlopen(3). Nothing but what must be unsafe is in here; who uses a page for what is `slab`'s
//! affair, which libraries there are that of `libraries`.
#![allow(unsafe_code, reason = "see above; each block says why it is sound")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::memory::Protection;

/// At least so many bytes that nobody else reads, between two pages that nobody may touch. Never given back.
pub(super) fn pages(bytes: usize) -> io::Result<(&'static mut [u8], Protection)> {
    let page = page_bytes()?;
    let inner = bytes.next_multiple_of(page);
    let whole = inner + 2 * page;
    let (start, protection) = match secret(whole) {
        Ok(start) => (start, Some(Protection::Secret)),
        Err(_) => (anonymous(whole)?, None),
    };
    let (first, last) = (start, start.wrapping_byte_add(page + inner));
    let keys = start.wrapping_byte_add(page);
    // SAFETY: all three ranges are inside of the mapping that was just made, whose address nobody else has. Nothing refers to its bytes.
    unsafe {
        rustix::mm::madvise(start, whole, Advice::LinuxDontDump)?;
        rustix::mm::madvise(start, whole, Advice::LinuxDontFork)?;
        rustix::mm::mprotect(first, page, MprotectFlags::empty())?;
        rustix::mm::mprotect(last, page, MprotectFlags::empty())?;
    }
    // SAFETY: as above; mlock(2) changes no byte.
    let locked = || unsafe { rustix::mm::mlock(keys, inner) }.is_ok();
    let protection = protection.unwrap_or_else(|| if locked() { Protection::Locked } else { Protection::Unlocked });
    // SAFETY: `inner` bytes that are mapped for reading and writing, zeroed by the kernel, aligned to a page, never unmapped, and in no
    // other slice. The file behind secret pages was closed and cannot be opened again, so that nobody else changes them.
    Ok((unsafe { slice::from_raw_parts_mut(keys.cast(), inner) }, protection))
}

/// From libc, which knows it since its start: rustix would read a file of /proc, which the filter of calls does not let it.
fn page_bytes() -> io::Result<usize> {
    let said = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    said.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The descriptor is closed on return: no child and no descriptor that is sent away has it.
fn secret(bytes: usize) -> io::Result<*mut c_void> {
    // SAFETY: memfd_secret(2) takes one number, and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::ftruncate(&fd, bytes as u64)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    Ok(unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, &fd, 0) }?)
}

fn anonymous(bytes: usize) -> io::Result<*mut c_void> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    Ok(unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }?)
}

/// Whether the dynamic loader has this library in memory now, for as long as the process lives.
pub(super) fn load_for_good(library: &CStr) -> bool {
    // SAFETY: dlopen(3) reads a string that ends with NUL and runs the library's initialisers. The C library itself would load the same
    // file at its first question for a name, at any time and in any thread; here no thread but this one exists. It is never unloaded.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE) };
    !handle.is_null()
}

/// The system's heap, with every block wiped before it is given back: buffers of HTTP/2, TLS, age and the clouds' libraries hold
/// plaintexts, logins and KEKs, and free them as they are.
pub(crate) struct WipingHeap;

#[global_allocator]
static HEAP: WipingHeap = WipingHeap;

// SAFETY: every block is the system's, with the layout that was asked for. `realloc` is the trait's own, which copies to a new block and
// gives the old one back through `dealloc`, so that the old one is wiped as well.
unsafe impl GlobalAlloc for WipingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same as the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same as the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives back a block of this size, which nobody uses any more. Bytes that were never written become 0.
            let bytes = unsafe {
                block.write_bytes(0, layout.size());
                slice::from_raw_parts(block.as_ptr(), layout.size())
            };
            // Or the compiler leaves out writes that nobody reads.
            zeroize::optimization_barrier(bytes);
            // SAFETY: the caller's promise is the same as the system's.
            unsafe { System.dealloc(block.as_ptr(), layout) }
        }
    }
}
