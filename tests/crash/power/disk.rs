//! A disk that records what reaches it: a file that this process serves by FUSE, for a
//! loop device to sit on.
//!
//! The loop device turns each write of the file system into a write of the file, and
//! each flush into an fsync of it (Linux, drivers/block/loop.c). With direct I/O no page
//! cache is between the two. The loop device has no write-through requests (FUA): the
//! kernel sends a write and a flush instead.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::image::Image;

/// What happened to the disk.
#[derive(Clone, Debug)]
pub enum Event {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Every write before it is durable.
    Flush,
    /// The client has the reply. It is no event of the disk.
    Answered,
}

#[derive(Default)]
struct Recording {
    image: Image,
    /// None while nothing is recorded.
    events: Option<Vec<Event>>,
}

/// The file system: its root has one file.
struct Served {
    recording: Arc<Mutex<Recording>>,
    size: u64,
}

/// A mounted file system with the file of the disk. It is unmounted when this value is
/// dropped.
pub struct Disk {
    recording: Arc<Mutex<Recording>>,
    path: PathBuf,
    _session: BackgroundSession,
}

const FILE: &str = "disk";
const FILE_NUMBER: INodeNo = INodeNo(2);

/// Nothing else changes the attributes.
const LASTS: Duration = Duration::from_secs(3600);

impl Disk {
    /// Serves a disk of `size` bytes below `directory`, which must exist.
    ///
    /// # Errors
    ///
    /// This user may not mount, or the machine has no FUSE.
    pub fn serve(directory: &Path, image: Image, size: u64) -> io::Result<Disk> {
        let recording = Arc::new(Mutex::new(Recording {
            image,
            events: None,
        }));
        let served = Served {
            recording: Arc::clone(&recording),
            size,
        };
        let session = fuser::spawn_mount(served, directory, &Config::default())?;
        Ok(Disk {
            recording,
            path: directory.join(FILE),
            _session: session,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording
            .lock()
            .expect("no thread panics with the lock")
    }

    /// Begins to record, and returns the present content.
    pub fn begin(&self) -> Image {
        let mut recording = self.recording();
        recording.events = Some(Vec::new());
        recording.image.clone()
    }

    /// Records that the client has its reply.
    pub fn answered(&self) {
        if let Some(events) = &mut self.recording().events {
            events.push(Event::Answered);
        }
    }

    /// Ends the recording.
    pub fn end(&self) -> Vec<Event> {
        self.recording().events.take().unwrap_or_default()
    }
}

impl Served {
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording
            .lock()
            .expect("no thread panics with the lock")
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let (kind, perm, size) = match number {
            FILE_NUMBER => (FileType::RegularFile, 0o600, self.size),
            _ => (FileType::Directory, 0o700, 0),
        };
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&LASTS, &self.attributes(FILE_NUMBER), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LASTS, &self.attributes(number));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = u64::from(size).min(self.size.saturating_sub(offset));
        let mut bytes = vec![0; len as usize];
        self.recording().image.read(offset, &mut bytes);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut recording = self.recording();
        recording.image.write(offset, bytes);
        if let Some(events) = &mut recording.events {
            let bytes = bytes.to_vec();
            events.push(Event::Write { offset, bytes });
        }
        drop(recording);
        reply.written(u32::try_from(bytes.len()).expect("the kernel limits a write"));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(events) = &mut self.recording().events {
            events.push(Event::Flush);
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
