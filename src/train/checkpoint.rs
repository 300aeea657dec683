//! A run between two steps, on disk: everything training needs to go on as if it had never stopped.
//!
//! One safetensors file with `params`, `first` and `second` (the adapter and AdamW's moments, f32) and the rest as JSON in its
//! metadata, written whole or not at all. The order of the data and the masks of dropout are pure functions of the seed and the
//! step, so the step stands for them.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::optimizer::Optimizer;
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};
use crate::files;

/// Its name in a run's folder.
pub const FILE: &str = "checkpoint.safetensors";
/// The key of the metadata.
const KEY: &str = "loralab";

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps made.
    pub step: usize,
    /// The step its schedule began at, and the schedule's length.
    pub begin: usize,
    pub steps: usize,
    /// The words behind `train` that began it.
    pub arguments: Vec<String>,
    /// [`crate::data::Tokenized::fingerprint`] of what it is trained on.
    pub data: String,
}

/// A run read back.
pub struct Checkpoint {
    pub position: Position,
    pub params: Vec<f32>,
    pub optimizer: Optimizer,
}

/// Writes where a run stands, with the parameters it trains and its optimizer.
///
/// # Errors
/// [`crate::error::Kind::Io`]; what was there stays.
pub fn write(dir: &Path, position: &Position, params: &[f32], optimizer: &Optimizer) -> Result<()> {
    let Some((first, second)) = optimizer.moments().first() else { return Ok(()) };
    let tensors = [("params", params), ("first", first.host()), ("second", second.host())];
    let mut views = Vec::new();
    for (name, values) in tensors {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values))
            .map_err(|e| Error::bug(format!("{FILE}: {e}")))?;
        views.push((name, view));
    }
    let state = State { position: position.clone(), updates: optimizer.updates, weight_decay: optimizer.weight_decay };
    let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&state).unwrap_or_default())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::bug(format!("{FILE}: {e}")))?;
    files::write(&dir.join(FILE), |w| w.write_all(&bytes))
}

/// Reads where the run in the folder `dir` stands.
///
/// # Errors
/// [`crate::error::Kind::NotFound`] if it has left no checkpoint, [`crate::error::Kind::Format`] if that is broken.
pub fn read(dir: &Path) -> Result<Checkpoint> {
    read_file(&dir.join(FILE))
}

/// As [`read`], from a file of any name.
///
/// # Errors
/// As [`read`].
pub fn read_file(path: &Path) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let broken = |what: String| Error::format(format!("{}: {what}", path.display()));
    let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(e.to_string()))?;
    let metadata = SafeTensors::read_metadata(&bytes).map_err(|e| broken(e.to_string()))?.1;
    let text =
        metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| broken("it says no position".into()))?;
    let state: State = serde_json::from_str(text).map_err(|e| broken(e.to_string()))?;
    let tensor = |name: &str| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(|e| broken(e.to_string()))?;
        if view.dtype() != Dtype::F32 {
            return Err(broken(format!("{name} is {:?}, not F32", view.dtype())));
        }
        Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let (params, first, second) = (tensor("params")?, tensor("first")?, tensor("second")?);
    if first.len() != params.len() || second.len() != params.len() {
        return Err(broken("its tensors are not of one length".into()));
    }
    let moment = |values| Buffer::from_vec(Purpose::Optimizer, values);
    let optimizer = Optimizer::restored(vec![(moment(first), moment(second))], state.updates, state.weight_decay);
    Ok(Checkpoint { position: state.position, params, optimizer })
}

#[derive(Serialize, Deserialize)]
struct State {
    position: Position,
    updates: u64,
    weight_decay: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_was_written_is_read_back_and_what_is_broken_is_refused() {
        let dir = std::env::temp_dir().join(format!("loralab-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(read(&dir).err().unwrap().kind(), Kind::NotFound);
        let moment = |values: &[f32]| Buffer::from_vec(Purpose::Optimizer, values.to_vec());
        let optimizer = Optimizer::restored(vec![(moment(&[1.0, -0.0]), moment(&[f32::MIN_POSITIVE, 3.5]))], 9, 0.1);
        let arguments = vec!["my rows".to_owned(), "--epochs".to_owned(), "2".to_owned()];
        let position = Position { step: 9, begin: 4, steps: 10, arguments, data: "ab".to_owned() };
        write(&dir, &position, &[0.1, f32::NAN], &optimizer).unwrap();
        let back = read(&dir).unwrap();
        assert_eq!(back.position, position);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back.params), bits(&[0.1, f32::NAN]));
        assert_eq!((back.optimizer.updates, back.optimizer.weight_decay), (9, 0.1));
        let (first, second) = &back.optimizer.moments()[0];
        assert_eq!(bits(first.host()), bits(&[1.0, -0.0]));
        assert_eq!(bits(second.host()), bits(&[f32::MIN_POSITIVE, 3.5]));

        let bytes = std::fs::read(dir.join(FILE)).unwrap();
        for broken in [&bytes[..bytes.len() - 4], &bytes[..7], b"{}", b""] {
            std::fs::write(dir.join(FILE), broken).unwrap();
            assert_eq!(read(&dir).err().unwrap().kind(), Kind::Format);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
