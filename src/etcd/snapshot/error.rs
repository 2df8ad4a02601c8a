//! Why a file cannot be read to its end.

use std::io;

use crate::types::{Class, Explained};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The kernel's reason.
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    /// A running etcd has it open.
    #[error("a running etcd uses this file")]
    InUse,
    /// Neither of the two lengths that it may have.
    #[error(
        "the file is cut: it has {size} bytes, which is no whole number of pages, with or without a hash behind them"
    )]
    Length {
        /// Of the file.
        size: u64,
    },
    /// The hash at its end.
    #[error("the hash at the end of the file does not fit what stands before it")]
    Hash,
    /// No page says what the file is.
    #[error("the file is no database of etcd, or both of its first two pages are damaged")]
    Meta,
    /// The end is missing.
    #[error("the file is cut: it has {pages} pages, and says that it has {expected}")]
    Cut {
        /// Whole pages that are there.
        pages: u64,
        /// That its head names.
        expected: u64,
    },
    /// A page that is no page.
    #[error("page {page} is damaged: {what}")]
    Page {
        /// Its number.
        page: u64,
        /// What was seen.
        what: &'static str,
    },
    /// Another database.
    #[error("the file has no bucket `key`, so it is no database of etcd")]
    Bucket,
}

impl Explained for SnapshotError {
    fn class(&self) -> Class {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => Class::Denied,
            Self::Io(_) | Self::InUse | Self::Bucket => Class::Misconfigured,
            Self::Length { .. } | Self::Hash | Self::Meta | Self::Cut { .. } | Self::Page { .. } => Class::Corrupt,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => "run it as root",
            Self::Io(_) | Self::Bucket => {
                "name a file of `etcdctl snapshot save`, or member/snap/db of an etcd that is stopped"
            }
            Self::InUse => "take a snapshot with `etcdctl snapshot save`, or scan the running etcd with --endpoints",
            Self::Length { .. } | Self::Hash | Self::Meta | Self::Cut { .. } | Self::Page { .. } => {
                "nothing was counted: copy the file again, or take another snapshot with `etcdctl snapshot save`"
            }
        }
    }
}
