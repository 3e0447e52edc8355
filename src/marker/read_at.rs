//! Reading at offsets, of a file or of bytes in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file or buffer that is read at offsets.
pub trait ReadAt {
    /// Reads from offset `at` into `buffer`, up to its length. Returns the number of
    /// bytes read, which is less than requested only at the end of the file.
    ///
    /// # Errors
    ///
    /// Returns an error if reading fails. The end of the file is not an error.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read_bytes = 0;
        while read_bytes < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read_bytes..], at + read_bytes as u64) {
                Ok(0) => break,
                Ok(count) => read_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read_bytes)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
