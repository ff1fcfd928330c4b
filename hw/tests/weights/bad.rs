//! Files that are cut off, bent, incomplete or of another model.

use crate::family::{self, FAMILIES, Family, WIDTH, tensor, write};
use hw::weights::{Weights, WeightsError};
use policy::BlockId;
use proptest::prelude::*;
use safetensors::Dtype;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What opening says of a family's file after a change.
fn refusal(family: &Family) -> WeightsError {
    let (_folder, path) = family.file();
    Weights::open(&path, &family.model).unwrap_err()
}

#[test]
fn another_type_or_shape_or_name_is_named_with_what_is_there_and_what_should_be() {
    let mut family = family::mixtral();
    let name = "model.layers.1.block_sparse_moe.experts.2.w2.weight";
    let right = family.tensors[name].clone();
    family.tensors.insert(name.into(), tensor(name, Dtype::F16, &right.shape));
    let error = refusal(&family);
    assert!(matches!(&error, WeightsError::Wrong(wrong) if wrong.what == "type"), "{error}");
    assert!(error.to_string().contains(&format!("tensor `{name}` has type F16, not BF16 or F32")), "{error}");
    family.tensors.insert(name.into(), tensor(name, Dtype::BF16, &[WIDTH, 64]));
    let error = refusal(&family).to_string();
    assert!(error.contains(&format!("tensor `{name}` has shape [96, 64], not [64, 96]")), "{error}");
    assert!(error.contains("are these its weights?"), "{error}");
    family.tensors.remove(name);
    let error = refusal(&family).to_string();
    assert!(error.contains(&format!("no tensor `{name}`, but `model.layers.0.")), "{error}");
}

#[test]
fn weights_of_another_model_are_refused() {
    let families = family::all();
    for (first, second) in
        families.iter().flat_map(|first| families.iter().map(move |second| (first, second)))
    {
        let (_folder, path) = first.file();
        let opened = Weights::open(&path, &second.model);
        // Experts with a tensor for each matrix differ in names only, and these have the same shapes.
        let by_matrix = |family: &Family| ["mixtral", "qwen3_moe", "olmoe"].contains(&family.name);
        let alike = first.name == second.name || by_matrix(first) && by_matrix(second);
        assert_eq!(opened.is_ok(), alike, "{} as {}: {:?}", first.name, second.name, opened.err());
    }
}

#[test]
fn gpt_oss_tensors_of_other_shapes_are_refused_one_by_one() {
    for part in ["gate_up_proj_blocks", "gate_up_proj_scales", "down_proj_blocks", "down_proj_scales"] {
        let mut family = family::gpt_oss();
        let name = format!("model.layers.1.mlp.experts.{part}");
        let mut shape = family.tensors[&name].shape.clone();
        shape[1] += 2;
        family.tensors.insert(name.clone(), tensor(&name, Dtype::U8, &shape));
        let error = refusal(&family).to_string();
        assert!(error.contains(&format!("tensor `{name}` has shape {shape:?}, not [4,")), "{error}");
        family.tensors.insert(name.clone(), tensor(&name, Dtype::I8, &shape));
        assert!(refusal(&family).to_string().contains("has type I8, not U8"));
    }
}

#[test]
fn shards_of_a_dense_layer_must_be_the_tensor() {
    for (part, rows) in [("self_attn.k_proj", 31), ("self_attn.k_proj", 33), ("mlp.down_proj", 63)] {
        let mut family = family::llama();
        let name = format!("model.layers.1.{part}.weight");
        let columns = family.tensors[&name].shape[1];
        family.tensors.insert(name.clone(), tensor(&name, Dtype::BF16, &[rows, columns]));
        let WeightsError::Wrong(wrong) = refusal(&family) else { panic!("{name} was taken") };
        assert_eq!((wrong.tensor, wrong.what), (name, "shape"));
    }
}

#[test]
fn a_file_that_shrinks_while_open_is_an_error_for_what_is_gone_and_for_that_only() {
    let family = family::llama();
    let (_folder, path) = family.file();
    let weights = Weights::open(&path, &family.model).unwrap();
    let len = path.metadata().unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    // The last tensor, a norm of 128 bytes, is in no block.
    for left in [len - 129, len / 2, 100, 0] {
        file.set_len(left).unwrap();
        let read: Vec<_> =
            (0..family.model.blocks.len() as u32).map(|id| weights.native(BlockId(id))).collect();
        let gone = read.iter().filter(|read| read.is_err()).count();
        assert!(gone > 0 && (left < len / 2 || gone < read.len()), "{gone} of {}", read.len());
        for error in read.into_iter().filter_map(Result::err) {
            assert!(matches!(error, WeightsError::Shrunk { .. }), "{error}");
            assert!(
                error
                    .to_string()
                    .contains("model.safetensors: the file has shrunk, and tensor `model.layers.")
            );
        }
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    let family = family::mixtral();
    let index = |change: &dyn Fn(&mut serde_json::Value)| {
        let folder = family.sharded();
        let path = folder.path().join("model.safetensors.index.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        Weights::open(folder.path(), &family.model).unwrap_err().to_string()
    };
    let name = "model.layers.0.block_sparse_moe.experts.0.w1.weight";
    for elsewhere in ["../model-00001-of-00003.safetensors", "/etc/passwd", "..", ""] {
        let error = index(&|json| json["weight_map"][name] = elsewhere.into());
        assert!(error.contains(&format!("`{elsewhere}` is not the name of a file beside it")), "{error}");
    }
    let error = index(&|json| json["weight_map"]["nothing"] = "model-00001-of-00003.safetensors".into());
    assert!(error.contains("tensor `nothing` is not in model-00001-of-00003.safetensors"), "{error}");
    let error = index(&|json| json["weight_map"][name] = "model-00009-of-00003.safetensors".into());
    assert!(error.contains("model-00009-of-00003.safetensors: No such file"), "{error}");
    let error = index(&|json| json["weight_map"] = 5.into());
    assert!(error.contains("index.json: invalid type: integer `5`"), "{error}");
}

#[test]
fn files_that_are_not_there_or_not_alone_are_named() {
    let family = family::mixtral();
    let empty = tempfile::tempdir().unwrap();
    let error = Weights::open(empty.path(), &family.model).unwrap_err();
    assert!(matches!(error, WeightsError::NoFiles { .. }), "{error}");
    let error = Weights::open(Path::new("no such file"), &family.model).unwrap_err();
    assert!(error.to_string().starts_with("no such file: No such file"), "{error}");
    std::fs::create_dir(empty.path().join("x.safetensors")).unwrap();
    let error = Weights::open(empty.path(), &family.model).unwrap_err();
    assert!(error.to_string().ends_with("x.safetensors: it is no regular file"), "{error}");
    let (folder, path) = family.file();
    std::fs::copy(&path, folder.path().join("other.safetensors")).unwrap();
    let error = Weights::open(folder.path(), &family.model).unwrap_err();
    assert!(matches!(error, WeightsError::Twice { .. }), "{error}");
    write(&path, &[("x".to_owned(), tensor("x", Dtype::BF16, &[2]))].into());
    let error = Weights::open(&path, &family.model).unwrap_err().to_string();
    let first = "experts.0.w1.weight` or `model.layers.0.mlp.experts.0.gate_proj.weight`, but `x` and others";
    assert!(error.contains(first), "{error}");
}

/// Opens and reads everything; how much of it worked is for the caller.
fn read_all(path: &Path, family: &Family) -> Result<Vec<Vec<u8>>, WeightsError> {
    let weights = Weights::open(path, &family.model)?;
    (0..family.model.blocks.len() as u32).map(|id| weights.native(BlockId(id))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_file_cut_off_anywhere_is_an_error(cut in any::<prop::sample::Index>(), which in 0usize..5) {
        let family = FAMILIES[which]();
        let (_folder, path) = family.file();
        let len = path.metadata().unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(cut.index(len as usize) as u64).unwrap();
        let error = Weights::open(&path, &family.model).unwrap_err();
        prop_assert!(matches!(error, WeightsError::Header { .. }), "{error}");
    }

    #[test]
    fn a_bent_header_is_an_error_or_gives_blocks_of_the_right_size(
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        which in 0usize..5,
    ) {
        let family = FAMILIES[which]();
        let (_folder, path) = family.file();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).unwrap();
        let header = 8 + u64::from_le_bytes(length) as usize;
        for (at, byte) in bends {
            file.write_at(&[byte], at.index(header) as u64).unwrap();
        }
        match read_all(&path, &family) {
            Err(error) => prop_assert!(error.to_string().contains("model.safetensors"), "{error}"),
            Ok(blocks) => for (bytes, block) in blocks.iter().zip(&family.model.blocks) {
                prop_assert_eq!(bytes.len() as u64, block.bytes(block.native).0);
            },
        }
    }
}
