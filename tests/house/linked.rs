//! Which libraries the programs link.

use std::fs;

/// The libraries that an ELF file needs (System V ABI, "Dynamic Section"; 64 bit, little-endian).
fn needed(path: &str) -> Vec<String> {
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x7FELF\x02\x01", "{path}");
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let place = |value: u64| usize::try_from(value).unwrap();
    let (table, size, count) = (place(u64_at(32)), usize::from(u16_at(54)), usize::from(u16_at(56)));
    let segments: Vec<usize> = (0..count).map(|index| table + index * size).collect();
    // File offset of an address: that of its segment, and the distance from the segment's begin.
    let offset = |address: u64| {
        let holds = |at: &&usize| {
            u32_at(**at) == PT_LOAD && (u64_at(**at + 16)..u64_at(**at + 16) + u64_at(**at + 32)).contains(&address)
        };
        let segment = *segments.iter().find(holds).unwrap();
        place(u64_at(segment + 8) + address - u64_at(segment + 16))
    };
    let dynamic = *segments.iter().find(|at| u32_at(**at) == PT_DYNAMIC).unwrap();
    let (start, len) = (place(u64_at(dynamic + 8)), place(u64_at(dynamic + 32)));
    let entries: Vec<(u64, u64)> = (start..start + len).step_by(16).map(|at| (u64_at(at), u64_at(at + 8))).collect();
    let strings = offset(entries.iter().find(|(tag, _)| *tag == DT_STRTAB).unwrap().1);
    let text = |at: usize| bytes[at..].iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).map(|(_, name)| text(strings + place(*name))).collect()
}

#[test]
fn only_the_sealer_links_the_tpm_library() {
    let of_tpm = |program| needed(program).into_iter().filter(|name| name.contains("tss2")).count();
    for program in [env!("CARGO_BIN_EXE_nodeseald"), env!("CARGO_BIN_EXE_nodeseal")] {
        let all = needed(program);
        assert!(all.iter().any(|name| name.starts_with("libc.so")), "{program} needs {all:?}");
        assert_eq!(of_tpm(program), 0, "{program} needs {all:?}");
        let foreign = all.iter().filter(|name| ["ssl", "crypto", "pkcs11"].iter().any(|word| name.contains(word)));
        assert_eq!(foreign.count(), 0, "{program} needs {all:?}");
    }
    assert!(of_tpm(env!("CARGO_BIN_EXE_nodeseal-sealer")) > 0);
}
