//! The networks and the training loop against PyTorch: outputs, every gradient, ten steps, the averaged weights.
//!
//! `scripts/make_fixtures.py` wrote `fixtures/{vae,unet}.safetensors` in double precision, with weights that are zero
//! nowhere. The fixtures also pin the name and the shape of every parameter: checkpoints depend on them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor, WithDType};
use distill::diffusion::{NoiseSchedule, Prediction};
use distill::error::Result;
use distill::models::unet::{LatentShape, UNet};
use distill::models::vae::Vae;
use distill::nn::Params;
use distill::ops::{Tape, Value, gaussian_kl, gaussian_sample, squared_error, weighted_sum};
use distill::progress::{Console, Verbosity};
use distill::train::{Intervals, Keep, StageConfig, Task, Trainer};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;

/// A file of tensors, and the configuration that made them.
struct Fixture {
    tensors: BTreeMap<String, Tensor>,
    notes: serde_json::Value,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
        let (_, header) = SafeTensors::read_metadata(&fs::read(&path).unwrap()).unwrap();
        let notes = serde_json::from_str(&header.metadata().as_ref().unwrap()["notes"]).unwrap();
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
        Fixture { tensors, notes }
    }

    fn note<T: DeserializeOwned>(&self, name: &str) -> T {
        serde_json::from_value(self.notes[name].clone()).unwrap()
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    /// What `name` holds for one step.
    fn step(&self, name: &str, step: u64) -> Tensor {
        self.get(name).get(step as usize).unwrap().contiguous().unwrap()
    }

    fn values<T: WithDType>(&self, name: &str, step: u64) -> Vec<T> {
        self.step(name, step).to_vec1().unwrap()
    }

    /// The tensors `group.NAME` by NAME.
    fn group(&self, group: &str) -> BTreeMap<String, Tensor> {
        let inside =
            |(name, t): (&String, &Tensor)| Some((name.strip_prefix(group)?.strip_prefix('.')?.into(), t.clone()));
        self.tensors.iter().filter_map(inside).collect()
    }

    /// Gives `params` the first weights, after a look at their names and shapes.
    fn assign(&self, params: &Params) {
        let list = |all: Vec<(String, Tensor)>| -> Vec<(String, Vec<usize>)> {
            all.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect()
        };
        let weights = self.group("weights");
        assert_eq!(list(params.named()), list(weights.clone().into_iter().collect()));
        params.assign(&weights, "fixture").unwrap();
    }
}

/// A task whose batches the fixture decides.
struct Fixed<F>(F);

impl<F: Fn(&Tape, u64) -> Result<Value>> Task for Fixed<F> {
    fn loss(&self, tape: &Tape, step: u64, _: Range<usize>) -> Result<Value> {
        self.0(tape, step)
    }

    fn validate(&self) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }

    fn draw(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

/// Compares the gradients of the first step, then trains as `distill train` does and compares what came of it.
fn follow(fixture: &Fixture, params: &Params, ema: &Params, loss: impl Fn(&Tape, u64) -> Result<Value>) {
    let tape = Tape::recording();
    let first = loss(&tape, 0).unwrap();
    let gradients = tape.backward(&first).unwrap();
    let expected = fixture.group("gradient");
    for (name, param) in params.named() {
        close(&format!("gradient of {name}"), gradients.get(&param).unwrap(), &expected[&name], 1e-4);
    }

    let (folder, stage) = (tempfile::tempdir().unwrap(), fixture.note::<StageConfig>("stage"));
    let trainer = Trainer {
        name: "parity",
        params,
        ema,
        config: &stage,
        section: "",
        intervals: Intervals { log: 1, checkpoint: 0, sample: 0 },
        keep: Keep { last: 1, best: false },
        dir: folder.path().into(),
        pictures: folder.path().into(),
        tensorboard: None,
        deadline: None,
        console: &Console::new(Verbosity::Quiet),
    };
    trainer.run(&Fixed(loss)).unwrap();
    let metrics = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let figures = |key: &str| {
        let found: Vec<f32> = lines.iter().filter_map(|line| Some(line.get(key)?.as_f64()? as f32)).collect();
        Tensor::new(found, &Device::Cpu).unwrap()
    };
    close("losses", &figures("loss"), fixture.get("losses"), 1e-4);
    close("gradient norms", &figures("gradient_norm"), fixture.get("gradient_norms"), 1e-4);

    // The way that each weight's average went from its start: near the end of training an average is close to its weight.
    let (start, expected) = (fixture.group("weights"), fixture.group("ema"));
    for (name, found) in ema.named() {
        let moved = |to: &Tensor| {
            let way = (to - &start[&name]).unwrap();
            if name.ends_with("qkv.bias") { without_keys(&way) } else { way }
        };
        let (found, expected) = (moved(&found), moved(&expected[&name]));
        // Of single elements, AdamW turns the rounding of a tiny gradient into whole steps.
        let error = length(&(&found - &expected).unwrap()) / length(&expected);
        assert!(error <= 5e-4, "average of {name}: off by {error} of its way");
    }
}

/// The L2 norm.
fn length(tensor: &Tensor) -> f32 {
    tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
}

/// A key's bias adds the same to all logits of a softmax: its gradient is 0, and AdamW makes its steps of rounding.
fn without_keys(bias: &Tensor) -> Tensor {
    let c = bias.elem_count() / 3;
    Tensor::cat(&[bias.narrow(0, 0, c).unwrap(), bias.narrow(0, 2 * c, c).unwrap()], 0).unwrap()
}

/// Checks that two tensors agree, in parts of the largest expected value.
fn close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let floats = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (floats(found), floats(expected));
    let largest = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert!((f - e).abs() <= tolerance * largest, "{what}: element {i} is {f}, expected {e} (largest: {largest})");
    }
}

/// Two sets of parameters with a network in each.
fn networks<N>(build: impl Fn(&Params) -> Result<N>) -> (N, Params, Params) {
    let (params, ema) = (Params::new(0, &Device::Cpu), Params::new(1, &Device::Cpu));
    build(&ema).unwrap();
    (build(&params).unwrap(), params, ema)
}

#[test]
fn vae_agrees_with_pytorch() {
    let fixture = Fixture::read("vae");
    let (vae, params, ema) = networks(|params| Vae::new(&fixture.note("config"), params.builder()));
    fixture.assign(&params);
    let images = |step| ((fixture.step("images", step).to_dtype(DType::F32)? / 127.5)? - 1.0)?.contiguous();

    let tape = Tape::inference();
    let first = Value::constant(images(0).unwrap());
    close("moments", vae.encode(&tape, &first).unwrap().tensor(), fixture.get("moments"), 1e-5);
    let means = fixture.get("moments").narrow(3, 0, 2).unwrap();
    close("means", &vae.encode_mean(first.tensor()).unwrap(), &means, 1e-5);
    let latents = Value::constant(fixture.get("latents").clone());
    close("decoded", vae.decode(&tape, &latents).unwrap().tensor(), fixture.get("decoded"), 1e-5);

    let kl_weight = fixture.note("kl_weight");
    follow(&fixture, &params, &ema, |tape, step| {
        let images = images(step)?;
        let moments = vae.encode(tape, &Value::constant(images.clone()))?;
        let latents = gaussian_sample(tape, &moments, &fixture.step("noise", step))?;
        let error = squared_error(tape, &vae.decode(tape, &latents)?, &images, None)?;
        weighted_sum(tape, &[(&error, 1.0), (&gaussian_kl(tape, &moments)?, kl_weight)])
    });
}

#[test]
fn unet_agrees_with_pytorch() {
    let fixture = Fixture::read("unet");
    let shape = LatentShape { size: 8, channels: 2, classes: fixture.note("classes") };
    let (unet, params, ema) = networks(|params| UNet::new(&fixture.note("config"), shape, params.builder()));
    fixture.assign(&params);

    let (schedule, gamma) = (NoiseSchedule::cosine(1000), fixture.note("gamma"));
    let mix = |step: u64, factors: &dyn Fn(f64) -> (f64, f64)| {
        let times = fixture.values::<i64>("times", step);
        let factors: Vec<(f64, f64)> = times.iter().map(|&t| factors(schedule.alpha_bar[t as usize])).collect();
        let per_image = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let values: Vec<f32> = factors.iter().map(|f| of(f) as f32).collect();
            Tensor::from_vec(values, (times.len(), 1, 1, 1), &Device::Cpu)
        };
        let of_latents = fixture.step("latents", step).broadcast_mul(&per_image(&|f| f.0)?)?;
        of_latents + fixture.step("noise", step).broadcast_mul(&per_image(&|f| f.1)?)?
    };
    let predict = |tape: &Tape, step: u64| {
        let noisy = Value::constant(mix(step, &|a| (a.sqrt(), (1.0 - a).sqrt()))?);
        let times: Vec<f32> = fixture.values::<i64>("times", step).into_iter().map(|t| t as f32).collect();
        let classes: Vec<u32> = fixture.values::<i64>("classes", step).into_iter().map(|c| c as u32).collect();
        unet.forward(tape, &noisy, &times, &classes)
    };
    close("prediction", predict(&Tape::inference(), 0).unwrap().tensor(), fixture.get("prediction"), 1e-5);

    follow(&fixture, &params, &ema, |tape, step| {
        let target = mix(step, &|a| Prediction::V.target_factors(a))?;
        let weight = |t: i64| Prediction::V.loss_weight(schedule.snr(t as usize), gamma) as f32;
        let weights: Vec<f32> = fixture.values("times", step).into_iter().map(weight).collect();
        squared_error(tape, &predict(tape, step)?, &target, Some(&weights))
    });
}
