//! Tensors by name in files, whatever their format: where each lies, whether it has changed.

use std::collections::HashMap;
use std::ops::Range;

use super::file::{Bytes, sha256};
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

    /// The bytes of tensor `i`.
    ///
    /// # Errors
    /// [`crate::error::Kind::State`] if they have changed.
    pub(crate) fn bytes(&self, i: usize) -> Result<&[u8]> {
        self.file(i).checked(self.places[i].1.clone(), &self.list[i].name, self.digests.get(&i))
    }

    /// Says that the bytes of tensor `i` are not needed soon.
    pub(crate) fn release(&self, i: usize) {
        self.file(i).release(self.places[i].1.clone());
    }

    /// SHA-256 of the bytes of a tensor.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`]; [`crate::error::Kind::State`] if it is not what it was the first time.
    pub(crate) fn digest(&mut self, name: &str) -> Result<[u8; 32]> {
        let i = self.position(name)?;
        let digest = sha256(self.bytes(i)?);
        self.release(i);
        if *self.digests.entry(i).or_insert(digest) != digest {
            return Err(self.file(i).changed(name));
        }
        Ok(digest)
    }
}
