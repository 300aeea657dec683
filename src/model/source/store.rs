//! Tensors by name in files, whatever their format: where each lies, whether it has changed.

use std::collections::HashMap;
use std::ops::Range;

use super::digest::Digest;
use super::file::Bytes;
use super::{TensorInfo, nearest};
use crate::error::{Error, Result};

/// Files and the tensors in them.
pub(crate) struct Store {
    files: Vec<Bytes>,
    list: Vec<TensorInfo>,
    /// File and bytes of each.
    places: Vec<(usize, Range<usize>)>,
    index: HashMap<String, usize>,
    digests: HashMap<usize, [u8; 32]>,
}

impl Store {
    pub(crate) fn new(files: Vec<Bytes>) -> Self {
        Self { files, list: Vec::new(), places: Vec::new(), index: HashMap::new(), digests: HashMap::new() }
    }

    /// Adds a tensor that lies in the bytes `range` of a file.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] if its name is taken.
    pub(crate) fn push(&mut self, tensor: TensorInfo, file: usize, range: Range<usize>) -> Result<()> {
        if let Some(&twin) = self.index.get(&tensor.name) {
            let (one, other) = (self.files[self.places[twin].0].name(), self.files[file].name());
            return Err(Error::format(format!("there are two tensors {}, in {one} and {other}", tensor.name)));
        }
        self.index.insert(tensor.name.clone(), self.list.len());
        self.list.push(tensor);
        self.places.push((file, range));
        Ok(())
    }

    /// Every tensor, in the order they were added.
    pub(crate) fn list(&self) -> &[TensorInfo] {
        &self.list
    }

    pub(crate) fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.list[i])
    }

    /// The number of a tensor in [`Store::list`].
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`] with the nearest name.
    pub(crate) fn position(&self, name: &str) -> Result<usize> {
        self.index.get(name).copied().ok_or_else(|| {
            let files: Vec<String> = self.files.iter().map(Bytes::name).collect();
            let error = Error::not_found(format!("there is no tensor {name} in {}", files.join(", ")));
            match nearest::nearest(name, self.list.iter().map(|tensor| tensor.name.as_str())).first() {
                Some(near) => error.hint(format!("the nearest name is {near}")),
                None => error,
            }
        })
    }

    /// The file that tensor `i` lies in.
    pub(crate) fn file(&self, i: usize) -> &Bytes {
        &self.files[self.places[i].0]
    }

    /// Hands the bytes of tensor `i` to `each`, `stretch` of them at a time: no more of the file is in memory at once. The first
    /// time their digest is kept, later it is compared.
    ///
    /// # Errors
    /// [`crate::error::Kind::State`] if they have changed; what `each` returns.
    pub(crate) fn scan(
        &mut self,
        i: usize,
        stretch: usize,
        mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (file, range) = (self.file(i), &self.places[i].1);
        let bytes = file.checked(range.clone(), &self.list[i].name, self.digests.get(&i))?;
        let mut digest = Digest::default();
        let mut start = 0usize;
        loop {
            let end = bytes.len().min(start.saturating_add(stretch));
            digest.update(&bytes[start..end]);
            each(start, &bytes[start..end])?;
            file.release(range.start + start..range.start + end);
            start = end;
            if start == bytes.len() {
                break;
            }
        }
        let digest = digest.finish();
        if *self.digests.entry(i).or_insert(digest) != digest {
            return Err(self.file(i).changed(&self.list[i].name));
        }
        Ok(())
    }

    /// All bytes of tensor `i`, as they stand.
    ///
    /// # Errors
    /// [`crate::error::Kind::State`] if they have changed.
    pub(crate) fn copy(&self, i: usize) -> Result<Vec<u8>> {
        let (file, range) = (self.file(i), &self.places[i].1);
        let bytes = file.checked(range.clone(), &self.list[i].name, self.digests.get(&i))?.to_vec();
        file.release(range.clone());
        Ok(bytes)
    }
}
