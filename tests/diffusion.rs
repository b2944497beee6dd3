//! Schedules, targets, guidance, noise and DDIM against formulas written here and against cases with known answers.

use std::cell::RefCell;

use candle_core::{Device, Tensor};
use distill::diffusion::samplers::{Ddim, DpmSolver, Sampler};
use distill::diffusion::{
    Denoiser, Guided, Network, NoiseSchedule, NoiseSource, Parameterized, Prediction, ScheduleKind,
};
use distill::error::Result;

fn floats(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn near(what: &str, found: f64, expected: f64, relative: f64) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{what} is {found}, expected {expected}");
}

/// The largest distance between two arrays.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn noise(images: &[(u32, u32)]) -> NoiseSource {
    NoiseSource { seed: 5, images: images.to_vec(), size: 4, channels: 3, device: Device::Cpu }
}

/// Draws with a denoiser that is used as it is.
fn ddim(schedule: &NoiseSchedule, steps: usize, eta: f64, denoiser: &dyn Denoiser, noise: &NoiseSource) -> Vec<f64> {
    floats(&Ddim { schedule, steps, eta }.sample(denoiser, noise, &|| Ok(())).unwrap())
}

/// A network or a denoiser, computed in f64 element by element from (x, t, class).
struct Elementwise<F>(F);

impl<F: Fn(f64, usize, u32) -> f64> Elementwise<F> {
    fn run(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor> {
        let values = floats(x);
        let image = values.len() / classes.len();
        let out = values.iter().enumerate().map(|(i, &v)| (self.0)(v, t, classes[i / image]) as f32).collect();
        Ok(Tensor::from_vec(out, x.dims(), x.device())?)
    }
}

impl<F: Fn(f64, usize, u32) -> f64> Network for Elementwise<F> {
    fn predict(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor> {
        self.run(x, t, classes)
    }
}

impl<F: Fn(f64, usize, u32) -> f64> Denoiser for Elementwise<F> {
    fn x0(&self, x: &Tensor, t: usize, classes: &[u32]) -> Result<Tensor> {
        self.run(x, t, classes)
    }
}

mod schedule {
    use super::*;

    /// f(t + 1) / f(0) of eq. 17, computed apart; at the last step beta is 0.999 instead of 1.
    #[test]
    fn cosine_has_the_values_of_its_formula() {
        let schedule = NoiseSchedule::new(ScheduleKind::Cosine, 1000);
        for (t, expected) in [
            (0, 0.999958715775178),
            (250, 0.8458879864968829),
            (499, 0.49384359044063775),
            (749, 0.1442721023857358),
            (998, 2.428766907034851e-6),
            (999, 2.428766907034851e-9),
        ] {
            near(&format!("a_{t}"), schedule.alpha_bar[t], expected, 1e-9);
        }
        let coarse = NoiseSchedule::cosine(4).alpha_bar;
        for (found, expected) in coarse.iter().zip([0.8470121613269047, 0.49384359044063775, 0.1442721023857358]) {
            near("a_t of 4 steps", *found, expected, 1e-12);
        }
    }

    /// The products of DDPM's betas, computed apart with 40 digits; the paper's noise has a signal of 4e-5 left.
    #[test]
    fn linear_has_the_values_of_ddpm() {
        let schedule = NoiseSchedule::new(ScheduleKind::Linear, 1000);
        for (t, expected) in [
            (0, 0.9999),
            (1, 0.9997800920720721),
            (249, 0.5240853738253605),
            (499, 0.07858724288177824),
            (999, 4.0358297653756834e-5),
        ] {
            near(&format!("a_{t}"), schedule.alpha_bar[t], expected, 1e-9);
        }
        // Fewer steps reach about the same noise.
        let end = |steps| NoiseSchedule::linear(steps).alpha_bar[steps - 1];
        assert!((end(250).ln() - end(1000).ln()).abs() < 0.5, "{} and {}", end(250), end(1000));
    }

    #[test]
    fn the_signal_falls_strictly_and_stays_inside_its_range() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear] {
            for steps in [1, 2, 10, 1000] {
                let schedule = NoiseSchedule::new(kind, steps);
                assert_eq!(schedule.len(), steps);
                assert!(schedule.alpha_bar.iter().all(|a| 0.0 < *a && *a < 1.0), "{kind:?} of {steps} steps");
                assert!(schedule.alpha_bar.windows(2).all(|pair| pair[0] > pair[1]), "{kind:?} of {steps} steps");
            }
        }
        let schedule = NoiseSchedule::linear(1000);
        near("SNR", schedule.snr(249), 0.5240853738253605 / 0.4759146261746395, 1e-9);
    }

    #[test]
    fn sampling_starts_at_the_last_step_and_falls() {
        let schedule = NoiseSchedule::cosine(1000);
        assert_eq!(schedule.sampling_steps(1), [999]);
        assert_eq!(schedule.sampling_steps(4), [999, 749, 499, 249]);
        assert_eq!(schedule.sampling_steps(1000), (0..1000).rev().collect::<Vec<_>>());
        for count in 1..=1000 {
            let steps = schedule.sampling_steps(count);
            assert_eq!((steps.len(), steps[0]), (count, 999));
            assert!(steps.windows(2).all(|pair| pair[0] > pair[1]), "{count}: {steps:?}");
        }
        assert_eq!(NoiseSchedule::linear(7).sampling_steps(3), [6, 4, 1]);
    }
}

mod prediction {
    use super::*;

    const KINDS: [Prediction; 2] = [Prediction::Eps, Prediction::V];

    /// The estimate of x_0 from noisy latents of (x0, e), if the network is off its target by `error`.
    fn x0_of(kind: Prediction, schedule: &NoiseSchedule, t: usize, (x0, e): (f64, f64), error: f64) -> f64 {
        let a = schedule.alpha_bar[t];
        let (of_x0, of_e) = kind.target_factors(a);
        let target = of_x0 * x0 + of_e * e + error;
        let net = Elementwise(|_, _, _| target);
        let x = (a.sqrt() * x0 + (1.0 - a).sqrt() * e) as f32;
        let x = Tensor::new(&[x], &Device::Cpu).unwrap();
        floats(&Parameterized { net, schedule, prediction: kind }.x0(&x, t, &[0]).unwrap())[0]
    }

    #[test]
    fn targets_lead_back_to_x0() {
        let schedule = NoiseSchedule::linear(1000);
        for kind in KINDS {
            for t in [0, 1, 250, 500, 900, 999] {
                for (x0, e) in [(0.7, -1.3), (-2.5, 0.4), (0.0, 2.0)] {
                    let found = x0_of(kind, &schedule, t, (x0, e), 0.0);
                    // Noise is divided by sqrt(a): 6e-8 of rounding becomes 1e-5 at the last step.
                    assert!((found - x0).abs() < 1e-4, "{kind:?} at {t}: {found}, expected {x0}");
                }
            }
        }
    }

    #[test]
    fn an_estimate_from_noise_stays_within_five_deviations() {
        let schedule = NoiseSchedule::cosine(1000);
        for (error, limit) in [(0.5, -5.0), (-0.5, 5.0)] {
            assert_eq!(x0_of(Prediction::Eps, &schedule, 999, (0.3, 1.0), error), limit);
        }
    }

    #[test]
    fn loss_weights_have_their_values() {
        for (kind, snr, gamma, expected) in [
            (Prediction::Eps, 20.0, 5.0, 0.25),
            (Prediction::Eps, 2.0, 5.0, 1.0),
            (Prediction::V, 20.0, 5.0, 5.0 / 21.0),
            (Prediction::V, 3.0, 5.0, 0.75),
            (Prediction::V, 3.0, f64::INFINITY, 0.75),
        ] {
            near(&format!("{kind:?} at SNR {snr}"), kind.loss_weight(snr, gamma), expected, 1e-12);
        }
    }

    /// What min-SNR means: however the network is parameterized, a squared error of x_0 weighs min(SNR, gamma).
    #[test]
    fn loss_weights_amount_to_min_snr_of_x0() {
        let schedule = NoiseSchedule::linear(1000);
        for kind in KINDS {
            for t in [50, 150, 300, 500] {
                let snr = schedule.snr(t);
                let moved = x0_of(kind, &schedule, t, (0.2, 0.5), 0.1) - 0.2;
                let found = kind.loss_weight(snr, 5.0) * 0.1 * 0.1 / (moved * moved);
                near(&format!("{kind:?} at {t}: weight"), found, snr.min(5.0), 1e-3);
            }
        }
    }
}

mod guidance {
    use super::*;

    const NULL: u32 = 9;

    #[test]
    fn goes_straight_from_the_null_class_through_the_class() {
        let calls = RefCell::new(0);
        let guided = |scale: f64| {
            let inner = Elementwise(|x: f64, t, class| {
                *calls.borrow_mut() += 1;
                x * f64::from(class) + t as f64
            });
            let x = Tensor::new(&[[1.0f32, 2.0], [-3.0, 0.5]], &Device::Cpu).unwrap();
            floats(&Guided { inner, null_class: NULL, scale }.x0(&x, 7, &[2, 4]).unwrap())
        };
        let with = [1.0 * 2.0 + 7.0, 2.0 * 2.0 + 7.0, -3.0 * 4.0 + 7.0, 0.5 * 4.0 + 7.0];
        let without = [1.0 * 9.0 + 7.0, 2.0 * 9.0 + 7.0, -3.0 * 9.0 + 7.0, 0.5 * 9.0 + 7.0];
        assert_eq!(guided(1.0), with);
        assert_eq!(calls.take(), 4, "without guidance the null class costs nothing");
        assert_eq!(guided(0.0), without);
        for scale in [0.5, 1.5, 4.0] {
            let line: Vec<f64> = with.iter().zip(&without).map(|(c, n)| n + scale * (c - n)).collect();
            assert!(distance(&guided(scale), &line) < 1e-4, "scale {scale}");
        }
    }
}

mod noise_source {
    use super::*;

    #[test]
    fn belongs_to_seed_class_and_index_whatever_the_batch() {
        let batch = noise(&[(0, 0), (3, 1), (1, 3), (0, 1)]);
        let (initial, of_step) = (batch.initial().unwrap(), batch.of_step(2).unwrap());
        assert_eq!(initial.dims(), [4, 4, 4, 3]);
        for (i, &image) in batch.images.iter().enumerate() {
            let alone = noise(&[image]);
            let row = |tensor: &Tensor| floats(&tensor.get(i).unwrap());
            assert_eq!(row(&initial), floats(&alone.initial().unwrap()));
            assert_eq!(row(&of_step), floats(&alone.of_step(2).unwrap()));
        }
        let first = |source: NoiseSource| floats(&source.initial().unwrap());
        let base = first(noise(&[(1, 3)]));
        assert_ne!(base, first(noise(&[(3, 1)])));
        assert_ne!(base, first(NoiseSource { seed: 6, ..noise(&[(1, 3)]) }));
        assert_ne!(base, floats(&noise(&[(1, 3)]).of_step(0).unwrap()));
        assert_ne!(floats(&noise(&[(1, 3)]).of_step(0).unwrap()), floats(&noise(&[(1, 3)]).of_step(1).unwrap()));
    }

    #[test]
    fn samples_belong_to_their_image_whatever_the_batch() {
        let schedule = NoiseSchedule::cosine(100);
        let denoiser = Elementwise(|x: f64, _, class| (x * 0.5 + f64::from(class)).tanh());
        let draw = |images: &[(u32, u32)]| ddim(&schedule, 5, 0.7, &denoiser, &noise(images));
        let (batch, alone) = (draw(&[(2, 0), (0, 4), (2, 1)]), draw(&[(0, 4)]));
        assert_eq!(batch[alone.len()..2 * alone.len()], alone);
    }
}

mod sampler {
    use super::*;

    const IMAGES: [(u32, u32); 3] = [(0, 0), (1, 0), (1, 7)];

    /// The noise in x if the data are -m and m with equal chance: the posterior mean is m tanh(m sqrt(a) x / (1 - a)).
    fn eps(x: f64, a: f64, class: u32) -> f64 {
        let m = 0.5 + f64::from(class);
        (x - a.sqrt() * m * (m * a.sqrt() * x / (1.0 - a)).tanh()) / (1.0 - a).sqrt()
    }

    /// DDIM as the paper prints it (eq. 12 and 16), in its own terms: the network's noise, one element at a time.
    fn plain(schedule: &NoiseSchedule, steps: &[usize], eta: f64, source: &NoiseSource) -> Vec<f64> {
        let mut x = floats(&source.initial().unwrap());
        let image = x.len() / source.images.len();
        for i in 0..steps.len() {
            let a = schedule.alpha_bar[steps[i]];
            let before = if i + 1 < steps.len() { schedule.alpha_bar[steps[i + 1]] } else { 1.0 };
            let sigma = eta * ((1.0 - before) / (1.0 - a)).sqrt() * (1.0 - a / before).sqrt();
            let fresh = floats(&source.of_step(i).unwrap());
            for (k, x) in x.iter_mut().enumerate() {
                let e = eps(*x, a, source.images[k / image].0);
                let predicted = (*x - (1.0 - a).sqrt() * e) / a.sqrt();
                *x = before.sqrt() * predicted + (1.0 - before - sigma * sigma).sqrt() * e + sigma * fresh[k];
            }
        }
        x
    }

    #[test]
    fn ddim_follows_the_papers_equations() {
        for (kind, schedule) in
            [(Prediction::Eps, NoiseSchedule::linear(1000)), (Prediction::V, NoiseSchedule::cosine(1000))]
        {
            for (steps, eta) in [(vec![999], 0.0), (vec![999, 799, 599, 399, 199], 0.0), (vec![999, 666, 332], 0.5)] {
                let net = Elementwise(|x: f64, t, class| {
                    let a = schedule.alpha_bar[t];
                    let e = eps(x, a, class);
                    // v from x and e alone: x_0 = (x - sqrt(1 - a) e) / sqrt(a).
                    if kind == Prediction::Eps { e } else { (e - (1.0 - a).sqrt() * x) / a.sqrt() }
                });
                let denoiser = Parameterized { net, schedule: &schedule, prediction: kind };
                let found = ddim(&schedule, steps.len(), eta, &denoiser, &noise(&IMAGES));
                let expected = plain(&schedule, &steps, eta, &noise(&IMAGES));
                let off = distance(&found, &expected);
                assert!(off < 1e-3, "{kind:?}, {} steps, eta {eta}: off by {off}", steps.len());
            }
        }
    }

    /// Data of a class are normal with its mean and deviation; then the best denoiser is linear in x.
    const GAUSSIANS: [(f64, f64); 2] = [(0.8, 0.5), (-2.0, 0.25)];

    fn gaussian(schedule: &NoiseSchedule) -> Elementwise<impl Fn(f64, usize, u32) -> f64> {
        Elementwise(move |x: f64, t: usize, class: u32| {
            let ((mean, s), a) = (GAUSSIANS[class as usize], schedule.alpha_bar[t]);
            mean + a.sqrt() * s * s / (a * s * s + 1.0 - a) * (x - a.sqrt() * mean)
        })
    }

    /// Where the probability flow (DDIM's section 4.3) leads from the first noise of `IMAGES`: its solutions keep
    /// (x_t - sqrt(a_t) mean) / sqrt(a_t s^2 + 1 - a_t).
    fn end_of_flow(schedule: &NoiseSchedule, source: &NoiseSource) -> Vec<f64> {
        let a = schedule.alpha_bar[999];
        let end = |(k, x): (usize, &f64)| {
            let (mean, s) = GAUSSIANS[IMAGES[k / 48].0 as usize];
            mean + s * (x - a.sqrt() * mean) / (a * s * s + 1.0 - a).sqrt()
        };
        floats(&source.initial().unwrap()).iter().enumerate().map(end).collect()
    }

    /// Without noise DDIM is Euler's method on the probability flow.
    #[test]
    fn ddim_converges_to_the_probability_flow_of_a_gaussian() {
        let (schedule, source) = (NoiseSchedule::cosine(1000), noise(&IMAGES));
        let exact = end_of_flow(&schedule, &source);
        let error = |steps| distance(&ddim(&schedule, steps, 0.0, &gaussian(&schedule), &source), &exact);
        let errors = [8, 32, 128, 512].map(error);
        assert!(errors.windows(2).all(|pair| pair[1] < 0.5 * pair[0]), "{errors:?}");
        assert!(errors[3] < 0.01, "{errors:?}");
    }

    fn dpm_solver(schedule: &NoiseSchedule, steps: usize, denoiser: &dyn Denoiser, noise: &NoiseSource) -> Vec<f64> {
        floats(&DpmSolver { schedule, steps }.sample(denoiser, noise, &|| Ok(())).unwrap())
    }

    /// Algorithm 2 of the paper in its own terms (alpha, sigma, lambda, h, r, D), one element at a time. The last step
    /// ends where sigma is 0 and lambda infinite: there x is the last estimate.
    fn plain_dpm_solver(schedule: &NoiseSchedule, steps: &[usize], source: &NoiseSource) -> Vec<f64> {
        let mut x = floats(&source.initial().unwrap());
        let image = x.len() / source.images.len();
        let alpha: Vec<f64> = steps.iter().map(|&t| schedule.alpha_bar[t].sqrt()).collect();
        let sigma: Vec<f64> = steps.iter().map(|&t| (1.0 - schedule.alpha_bar[t]).sqrt()).collect();
        let lambda: Vec<f64> = alpha.iter().zip(&sigma).map(|(a, s)| (a / s).ln()).collect();
        for (k, x) in x.iter_mut().enumerate() {
            let class = source.images[k / image].0;
            let estimate = |x: f64, i: usize| (x - sigma[i] * eps(x, alpha[i] * alpha[i], class)) / alpha[i];
            let mut buffer = vec![estimate(*x, 0)];
            for i in 1..steps.len() {
                let h = lambda[i] - lambda[i - 1];
                let d = if i == 1 {
                    buffer[0]
                } else {
                    let r = (lambda[i - 1] - lambda[i - 2]) / h;
                    (1.0 + 1.0 / (2.0 * r)) * buffer[i - 1] - 1.0 / (2.0 * r) * buffer[i - 2]
                };
                *x = sigma[i] / sigma[i - 1] * *x - alpha[i] * ((-h).exp() - 1.0) * d;
                buffer.push(estimate(*x, i));
            }
            *x = buffer[steps.len() - 1];
        }
        x
    }

    #[test]
    fn dpm_solver_follows_the_papers_algorithm() {
        let schedule = NoiseSchedule::cosine(1000);
        let denoiser = Elementwise(|x: f64, t: usize, class| {
            let a: f64 = schedule.alpha_bar[t];
            (x - (1.0 - a).sqrt() * eps(x, a, class)) / a.sqrt()
        });
        for steps in [vec![999], vec![999, 499], vec![999, 799, 599, 399, 199]] {
            let found = dpm_solver(&schedule, steps.len(), &denoiser, &noise(&IMAGES));
            let off = distance(&found, &plain_dpm_solver(&schedule, &steps, &noise(&IMAGES)));
            assert!(off < 1e-3, "{} steps: off by {off}", steps.len());
        }
    }

    /// Of second order: on the flow whose end is known it is far nearer than DDIM in as many steps.
    #[test]
    fn dpm_solver_converges_faster_than_ddim() {
        let (schedule, source) = (NoiseSchedule::cosine(1000), noise(&IMAGES));
        let exact = end_of_flow(&schedule, &source);
        for steps in [20, 40, 80] {
            let ddim = distance(&ddim(&schedule, steps, 0.0, &gaussian(&schedule), &source), &exact);
            let solver = distance(&dpm_solver(&schedule, steps, &gaussian(&schedule), &source), &exact);
            assert!(solver < 0.5 * ddim, "{steps} steps: {solver}, DDIM {ddim}");
        }
    }

    #[test]
    fn samples_have_the_moments_of_the_data_at_every_eta() {
        let schedule = NoiseSchedule::cosine(1000);
        for (class, (mean, s)) in GAUSSIANS.into_iter().enumerate() {
            let source = noise(&(0..200).map(|index| (class as u32, index)).collect::<Vec<_>>());
            for eta in [0.0, 0.5, 1.0] {
                let x = ddim(&schedule, 200, eta, &gaussian(&schedule), &source);
                let n = x.len() as f64;
                let found = x.iter().sum::<f64>() / n;
                let deviation = (x.iter().map(|v| (v - found).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
                // 9,600 values: the mean's standard error is s / 98, the deviation's s / 139.
                assert!((found - mean).abs() < 0.04 * s, "class {class}, eta {eta}: mean {found}");
                near(&format!("class {class}, eta {eta}: deviation"), deviation, s, 0.03);
            }
        }
    }

    #[test]
    fn an_error_between_steps_ends_the_sampling() {
        let schedule = NoiseSchedule::cosine(10);
        let (ddim, calls) = (Ddim { schedule: &schedule, steps: 5, eta: 0.0 }, RefCell::new(0));
        let stop = || {
            *calls.borrow_mut() += 1;
            if *calls.borrow() == 2 { Err(distill::error::Error::Interrupted) } else { Ok(()) }
        };
        assert!(ddim.sample(&Elementwise(|x, _, _| x), &noise(&[(0, 0)]), &stop).is_err());
        assert_eq!(calls.take(), 2);
    }
}
