//! Images that stand for their class, chosen as a teacher sees them: of real ones the baselines, of generated ones what a
//! larger pool is narrowed down to.

mod k_means;
mod pool;

pub use pool::PoolSelection;

use rayon::prelude::*;

use crate::error::Result;
use crate::eval::Features;
use crate::usage;

/// The greedy k-center of each class (Sener and Savarese 2018, algorithm 1), from the image nearest to the class's mean
/// on: always the image farthest from those chosen. Indices in order of class, then of choice.
pub fn k_center(features: &Features, of_class: &[Vec<usize>], per_class: usize) -> Result<Vec<usize>> {
    each_class(of_class, per_class, |members| {
        let to_mean = squared_distances(features, members, &mean(features, members));
        let mut chosen = vec![extreme(&to_mean, |a, b| a < b)];
        let mut nearest = vec![f64::INFINITY; members.len()];
        loop {
            let newest = chosen[chosen.len() - 1];
            if chosen.len() == per_class {
                return chosen;
            }
            let centre: Vec<f64> = features.row(members[newest]).iter().map(|&v| v.into()).collect();
            let to_newest = squared_distances(features, members, &centre);
            nearest.iter_mut().zip(&to_newest).for_each(|(near, d)| *near = near.min(*d));
            nearest[newest] = -1.0; // a twin of a chosen image is at 0
            chosen.push(extreme(&nearest, |a, b| a > b));
        }
    })
}

/// Herding (Welling 2009; as in iCaRL, Rebuffi et al. 2017, eq. 4): always the image that brings the mean of those chosen
/// nearest to the class's mean. Indices in order of class, then of choice.
pub fn herding(features: &Features, of_class: &[Vec<usize>], per_class: usize) -> Result<Vec<usize>> {
    each_class(of_class, per_class, |members| {
        let mean = mean(features, members);
        let mut chosen: Vec<usize> = Vec::new();
        let mut sum = vec![0.0; features.dims];
        while chosen.len() < per_class {
            // |mean - (sum + x) / n| is least where x is nearest to n mean - sum.
            let n = (chosen.len() + 1) as f64;
            let wanted: Vec<f64> = mean.iter().zip(&sum).map(|(m, s)| n * m - s).collect();
            let mut off = squared_distances(features, members, &wanted);
            chosen.iter().for_each(|&i| off[i] = f64::INFINITY);
            let best = extreme(&off, |a, b| a < b);
            sum.iter_mut().zip(features.row(members[best])).for_each(|(s, &v)| *s += f64::from(v));
            chosen.push(best);
        }
        chosen
    })
}

/// Runs `choose` on the members of every class, which gives places among them. An error if a class has too few.
fn each_class(
    of_class: &[Vec<usize>],
    per_class: usize,
    choose: impl Fn(&[usize]) -> Vec<usize> + Sync,
) -> Result<Vec<usize>> {
    suffice(of_class, per_class)?;
    let chosen = of_class.par_iter().map(|members| {
        let places = if per_class == 0 { Vec::new() } else { choose(members) };
        places.into_iter().map(|place| members[place]).collect()
    });
    Ok(chosen.collect::<Vec<Vec<usize>>>().concat())
}

/// Refuses classes of fewer images than are to be chosen; for real images, of which none may be without.
pub fn suffice(of_class: &[Vec<usize>], per_class: usize) -> Result<()> {
    if let Some((class, members)) = of_class.iter().enumerate().find(|(_, members)| members.len() < per_class) {
        usage!("--ipc {per_class}: class {class} has only {} images; ask for at most that many", members.len());
    }
    Ok(())
}

/// The place of the first value that no other beats.
fn extreme(values: &[f64], beats: impl Fn(f64, f64) -> bool) -> usize {
    (1..values.len()).fold(0, |best, i| if beats(values[i], values[best]) { i } else { best })
}

fn mean(features: &Features, members: &[usize]) -> Vec<f64> {
    let mut mean = vec![0.0; features.dims];
    for &i in members {
        mean.iter_mut().zip(features.row(i)).for_each(|(m, &v)| *m += f64::from(v) / members.len() as f64);
    }
    mean
}

/// The squared distance of every member's features from a point.
fn squared_distances(features: &Features, members: &[usize], point: &[f64]) -> Vec<f64> {
    let square = |(v, p): (&f32, &f64)| (f64::from(*v) - p) * (f64::from(*v) - p);
    members.iter().map(|&i| features.row(i).iter().zip(point).map(square).sum()).collect()
}
