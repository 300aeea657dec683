//! PEFT's adapter folder: `adapter_config.json` and `adapter_model.safetensors` (`peft/utils/save_and_load.py`).
//!
//! Strict both ways: every tensor of the file has a place, every place gets its tensor, and shapes agree.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use super::adapter::Adapter;
use super::config::LoraConfig;
use super::targets::LinearInfo;
use crate::error::{Error, Result};
use crate::files::Folder;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Writes the adapter to the folder `dir`; `base` is the name of the base model, `extra` goes into the file's metadata.
    ///
    /// # Errors
    /// `dir` exists and `overwrite` is not set; writing fails. What was there stays then.
    pub fn save(
        &self,
        dir: &Path,
        linears: &[LinearInfo],
        base: &str,
        extra: &[(String, String)],
        overwrite: bool,
    ) -> Result<()> {
        let folder = Folder::create(dir, overwrite)?;
        self.write(&folder, linears, base, extra)?;
        folder.commit()?;
        Ok(())
    }

    /// Writes the adapter's two files into a folder that is being made.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, folder: &Folder, linears: &[LinearInfo], base: &str, extra: &[(String, String)]) -> Result<()> {
        let params: &[f32] = self.params.host();
        let mut views = Vec::new();
        for (site, linear) in self.sites.iter().zip(linears) {
            let Some(site) = site else { continue };
            let parts = [("lora_A", site.a, [site.rank, linear.input]), ("lora_B", site.b, [linear.out, site.rank])];
            for (part, at, shape) in parts {
                let data = bytemuck::cast_slice(&params[at..at + shape[0] * shape[1]]);
                let view = TensorView::new(Dtype::F32, shape.to_vec(), data)
                    .map_err(|e| Error::bug(format!("adapter tensor {part} of {}: {e}", linear.path)))?;
                views.push((format!("{PREFIX}{}.{part}.weight", linear.path), view));
            }
        }
        let mut metadata: HashMap<String, String> = extra.iter().cloned().collect();
        metadata.insert("format".to_owned(), "pt".to_owned());
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::bug(format!("{TENSORS}: {e}")))?;
        let config = serde_json::to_string_pretty(&self.config.to_peft(linears, base)).unwrap_or_default();
        folder.write(TENSORS, |w| w.write_all(&bytes))?;
        folder.write(CONFIG, |w| w.write_all(format!("{config}\n").as_bytes()))
    }

    /// Reads an adapter from the folder `dir`. Returns it with the metadata of its tensor file.
    ///
    /// # Errors
    /// A missing or broken file, an unsupported variant, a tensor that is missing, has another shape or belongs nowhere, by name.
    pub fn load(dir: &Path, linears: &[LinearInfo]) -> Result<(Self, HashMap<String, String>)> {
        let config_path = dir.join(CONFIG);
        let text = std::fs::read_to_string(&config_path).map_err(|e| {
            Error::io("read", &config_path, e).hint(format!("an adapter is a folder with {CONFIG} and {TENSORS}"))
        })?;
        let value: Value =
            serde_json::from_str(&text).map_err(|e| Error::format(format!("{}: {e}", config_path.display())))?;
        let config = LoraConfig::from_peft(&value).map_err(|e| e.context(dir.display()))?;
        let path = dir.join(TENSORS);
        let bytes = std::fs::read(&path).map_err(|e| {
            let hint = if dir.join("adapter_model.bin").exists() {
                "adapter_model.bin is PyTorch's old format: save it again with safe_serialization=True"
            } else {
                "an adapter is a folder with adapter_config.json and adapter_model.safetensors"
            };
            Error::io("read", &path, e).hint(hint)
        })?;
        let broken = |e: safetensors::SafeTensorError| Error::format(format!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let metadata = SafeTensors::read_metadata(&bytes).map_err(broken)?.1.metadata().clone().unwrap_or_default();
        let mut adapter = Self::layout(config, linears).map_err(|e| {
            // Nobody typed these targets: the file asks for what this program does not adapt.
            let error = Error::unsupported(format!("{}: {}", dir.display(), e.message()));
            error.hint(e.hint_text().unwrap_or("an adapter is loaded onto the model it was made for"))
        })?;
        adapter.place(&file, linears).map_err(|e| e.context(path.display()))?;
        Ok((adapter, metadata))
    }

    fn place(&mut self, file: &SafeTensors<'_>, linears: &[LinearInfo]) -> Result<()> {
        let mut left: Vec<&str> = file.names();
        for (index, linear) in linears.iter().enumerate() {
            let Some(site) = self.sites[index].clone() else { continue };
            let parts = [("lora_A", site.a, [site.rank, linear.input]), ("lora_B", site.b, [linear.out, site.rank])];
            for (part, at, shape) in parts {
                let name = format!("{PREFIX}{}.{part}.weight", linear.path);
                let view = file.tensor(&name).map_err(|_| {
                    Error::format(format!("tensor {name} is missing"))
                        .hint("the configuration's target_modules ask for it")
                })?;
                if view.shape() != shape {
                    return Err(Error::shape(format!("tensor {name} is {:?}, not {shape:?}", view.shape()))
                        .hint("is this adapter made for another base model?"));
                }
                let out = &mut self.params.host_mut()[at..at + shape[0] * shape[1]];
                read_f32(&view, out).map_err(|e| e.context(&name))?;
                left.retain(|n| *n != name);
            }
        }
        match left.first() {
            None => Ok(()),
            Some(name) => Err(Error::format(format!(
                "{} left over, the first is {name}",
                crate::event::units::plural(left.len(), "tensor")
            ))
            .hint("the base model has no such layer, or target_modules do not name it")),
        }
    }
}

fn read_f32(view: &TensorView<'_>, out: &mut [f32]) -> Result<()> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => {
            out.iter_mut()
                .zip(data.chunks_exact(4))
                .for_each(|(o, b)| *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        }
        Dtype::BF16 => {
            out.iter_mut()
                .zip(data.chunks_exact(2))
                .for_each(|(o, b)| *o = half::bf16::from_le_bytes([b[0], b[1]]).to_f32());
        }
        Dtype::F16 => {
            out.iter_mut()
                .zip(data.chunks_exact(2))
                .for_each(|(o, b)| *o = half::f16::from_le_bytes([b[0], b[1]]).to_f32());
        }
        other => return Err(Error::format(format!("numbers of type {other:?}, not F32, F16 or BF16"))),
    }
    match out.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(x) => Err(Error::format(format!("holds {x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets::{Role, Targets};
    use super::*;

    fn linears() -> Vec<LinearInfo> {
        let path = |layer: usize, name: &str| format!("model.layers.{layer}.self_attn.{name}");
        (0..4)
            .map(|i| LinearInfo {
                path: path(i / 2, ["q_proj", "v_proj"][i % 2]),
                layer: i / 2,
                role: Role::Attention,
                out: 6,
                input: 5,
            })
            .collect()
    }

    fn config(targets: &str) -> LoraConfig {
        LoraConfig {
            rank: 2,
            alpha: 4.0,
            targets: Targets::parse(targets),
            rank_pattern: vec![("v_proj".into(), 3)],
            ..LoraConfig::default()
        }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("loralab-peft-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_saved_adapter_comes_back_bit_for_bit() {
        let dir = folder("round");
        let mut adapter = Adapter::new(config("all-linear"), &linears(), 3).unwrap();
        adapter.params.host_mut().iter_mut().enumerate().for_each(|(i, p)| *p += i as f32 * 0.37);
        adapter.save(&dir, &linears(), "base", &[("template".into(), "alpaca".into())], false).unwrap();
        let (back, metadata) = Adapter::load(&dir, &linears()).unwrap();
        assert_eq!(back.params.host(), adapter.params.host());
        assert_eq!(back.sites, adapter.sites);
        assert_eq!(metadata["template"], "alpaca");
        assert!(adapter.save(&dir, &linears(), "base", &[], false).unwrap_err().message().contains("exists"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = folder("strict");
        let adapter = Adapter::new(config("q_proj,v_proj"), &linears(), 3).unwrap();
        adapter.save(&dir, &linears(), "base", &[], false).unwrap();
        // A model with other sizes.
        let mut other = linears();
        other[0].input = 7;
        assert!(Adapter::load(&dir, &other).err().unwrap().message().contains("layers.0.self_attn.q_proj.lora_A"));
        // A model without the second layer: tensors are left over.
        assert!(Adapter::load(&dir, &linears()[..2]).err().unwrap().message().contains("left over"));
        // A configuration that asks for more than the file holds.
        let text = std::fs::read_to_string(dir.join(CONFIG)).unwrap();
        let only_q = Adapter::new(config("q_proj"), &linears(), 3).unwrap();
        only_q.save(&dir, &linears(), "base", &[], true).unwrap();
        std::fs::write(dir.join(CONFIG), &text).unwrap();
        assert!(Adapter::load(&dir, &linears()).err().unwrap().message().contains("v_proj.lora_A.weight is missing"));
        // A truncated tensor file, a broken configuration, nothing at all.
        let bytes = std::fs::read(dir.join(TENSORS)).unwrap();
        std::fs::write(dir.join(TENSORS), &bytes[..bytes.len() - 5]).unwrap();
        assert!(Adapter::load(&dir, &linears()).err().unwrap().message().contains(TENSORS));
        std::fs::write(dir.join(CONFIG), "{").unwrap();
        assert!(Adapter::load(&dir, &linears()).err().unwrap().message().contains("line 1"));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(Adapter::load(&dir, &linears()).err().unwrap().kind(), crate::error::Kind::NotFound);
    }

    #[test]
    fn a_new_adapter_changes_nothing_and_an_impossible_rank_is_refused() {
        let adapter = Adapter::new(config("all-linear"), &linears(), 1).unwrap();
        let mut w = vec![0.5; 30];
        adapter.add_delta(0, &linears()[0], 1.0, &mut w);
        assert!(w.iter().all(|w| *w == 0.5));
        let bound = 1.0 / 5f32.sqrt();
        let a = &adapter.params.host()[..10];
        assert!(a.iter().all(|a| a.abs() <= bound) && a.iter().any(|a| a.abs() > bound / 2.0));
        let big = LoraConfig { rank: 6, rank_pattern: Vec::new(), ..config("all-linear") };
        assert!(Adapter::new(big, &linears(), 1).err().unwrap().message().contains("6 × 5"));
    }
}
