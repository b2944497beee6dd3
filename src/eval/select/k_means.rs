//! k-means (Lloyd 1982) from the seeds of k-means++ (Arthur and Vassilvitskii 2007).

use super::{extreme, mean, squared_distances};
use crate::eval::Features;
use crate::rng::Rng;

/// Rounds after which a clustering is taken as it is.
const MOST_ROUNDS: usize = 100;

/// Clusters of images, none of them empty.
pub struct Clusters {
    /// (k, dims)
    pub centres: Vec<Vec<f64>>,
    /// The cluster of each member.
    pub of: Vec<usize>,
}

/// Splits the images `members` into `k` clusters; there must be as many images at least.
pub fn k_means(features: &Features, members: &[usize], k: usize, rng: &mut Rng) -> Clusters {
    let mut centres = seeds(features, members, k, rng);
    let mut of = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let nearest = assign(features, members, &centres);
        if nearest == of {
            break;
        }
        of = nearest;
        centres = (0..k).map(|cluster| mean(features, &images_of(cluster, &of, members))).collect();
    }
    Clusters { centres, of }
}

/// Each next seed is drawn with a probability in proportion to its squared distance from the nearest seed before.
fn seeds(features: &Features, members: &[usize], k: usize, rng: &mut Rng) -> Vec<Vec<f64>> {
    let mut chosen = vec![rng.below(members.len())];
    let mut nearest = vec![f64::INFINITY; members.len()];
    loop {
        let centre = point(features, members[chosen[chosen.len() - 1]]);
        if chosen.len() == k {
            return chosen.iter().map(|&place| point(features, members[place])).collect();
        }
        let distances = squared_distances(features, members, &centre);
        nearest.iter_mut().zip(distances).for_each(|(near, d)| *near = near.min(d));
        let mut left = f64::from(rng.uniform()) * nearest.iter().sum::<f64>();
        let drawn = nearest.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        // Where all others are twins of seeds, any other image will do.
        let other = || (0..members.len()).find(|place| !chosen.contains(place)).unwrap_or(0);
        chosen.push(drawn.unwrap_or_else(other));
    }
}

/// The nearest centre of every image. One that is nearest to none takes the image farthest from its own.
fn assign(features: &Features, members: &[usize], centres: &[Vec<f64>]) -> Vec<usize> {
    let mut of = vec![0; members.len()];
    let mut least = vec![f64::INFINITY; members.len()];
    for (cluster, centre) in centres.iter().enumerate() {
        for (place, distance) in squared_distances(features, members, centre).into_iter().enumerate() {
            if distance < least[place] {
                (of[place], least[place]) = (cluster, distance);
            }
        }
    }
    let mut size = vec![0; centres.len()];
    of.iter().for_each(|&cluster| size[cluster] += 1);
    while let Some(empty) = size.iter().position(|&n| n == 0) {
        let can_go: Vec<f64> = of.iter().zip(&least).map(|(&c, &d)| if size[c] > 1 { d } else { -1.0 }).collect();
        let farthest = extreme(&can_go, |a, b| a > b);
        size[of[farthest]] -= 1;
        size[empty] = 1;
        (of[farthest], least[farthest]) = (empty, 0.0);
    }
    of
}

fn images_of(cluster: usize, of: &[usize], members: &[usize]) -> Vec<usize> {
    of.iter().zip(members).filter(|(c, _)| **c == cluster).map(|(_, &image)| image).collect()
}

fn point(features: &Features, image: usize) -> Vec<f64> {
    features.row(image).iter().map(|&v| v.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `blobs` groups of `each` points, a group's points within 1 of (100 g, 0).
    fn grouped(blobs: usize, each: usize) -> Features {
        let mut rng = Rng::stream(3, "points", 0, 0);
        let at = |i: usize, rng: &mut Rng| [100.0 * (i % blobs) as f32 + rng.uniform(), rng.uniform()];
        Features { values: (0..blobs * each).flat_map(|i| at(i, &mut rng)).collect(), dims: 2 }
    }

    #[test]
    fn groups_that_lie_apart_are_found() {
        let features = grouped(7, 20);
        let members: Vec<usize> = (0..140).collect();
        for seed in 0..20 {
            let found = k_means(&features, &members, 7, &mut Rng::stream(seed, "k-means", 0, 0));
            for (place, &cluster) in found.of.iter().enumerate() {
                assert_eq!(cluster, found.of[place % 7], "seed {seed}");
            }
            for (cluster, centre) in found.centres.iter().enumerate() {
                let images = images_of(cluster, &found.of, &members);
                let x: f64 = images.iter().map(|&i| f64::from(features.row(i)[0])).sum::<f64>() / images.len() as f64;
                assert!((centre[0] - x).abs() < 1e-9 && images.len() == 20);
            }
        }
    }

    #[test]
    fn no_cluster_is_empty_even_of_twins() {
        let twins = Features { values: vec![1.5; 12], dims: 2 };
        let members: Vec<usize> = (0..6).collect();
        let found = k_means(&twins, &members, 4, &mut Rng::stream(0, "k-means", 0, 0));
        for cluster in 0..4 {
            assert!(found.of.contains(&cluster));
        }
        let every = k_means(&grouped(3, 2), &members, 6, &mut Rng::stream(0, "k-means", 0, 0));
        let mut of = every.of.clone();
        of.sort_unstable();
        assert_eq!(of, [0, 1, 2, 3, 4, 5]);
    }
}
