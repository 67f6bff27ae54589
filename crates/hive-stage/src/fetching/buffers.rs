//! Buffers that pieces of a model are read into, each of which is used again once its piece has been sent.
//!
//! A fresh buffer comes from the system page by page, cleared, and goes back when it is freed. For a piece of a megabyte
//! that takes as long as reading it does.

use std::sync::{Arc, Mutex, PoisonError};

/// The buffers of one stream. It has as many as there are pieces in flight on it, and frees them with the last piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer, which goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    origin: Buffers,
}

impl Buffers {
    /// A buffer of this many bytes, whose contents are arbitrary.
    pub(crate) fn take(&self, length: usize) -> Buffer {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if bytes.len() < length {
            bytes = vec![0; length];
        }
        Buffer { bytes, length, origin: self.clone() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.origin.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_buffer_is_used_again_once_the_last_slice_of_it_is_dropped() {
        let buffers = Buffers::default();
        let mut first = buffers.take(4);
        first.as_mut().copy_from_slice(b"abcd");
        let place = first.as_ref().as_ptr();
        let mut sent = Bytes::from_owner(first);
        let rest = sent.split_off(2);
        drop(sent);
        assert_ne!(buffers.take(4).as_ref().as_ptr(), place);
        assert_eq!(rest, b"cd"[..]);
        drop(rest);
        let again = buffers.take(3);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref()), (place, &b"abc"[..]));
        assert_eq!(buffers.take(9).as_ref().len(), 9);
    }
}
