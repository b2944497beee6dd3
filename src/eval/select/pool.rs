//! The images of a pool that are kept as a distilled set.

use rayon::prelude::*;
use serde::Serialize;

use super::k_means::k_means;
use super::{extreme, herding, squared_distances};
use crate::data::ImageSet;
use crate::error::Result;
use crate::eval::{Features, Teacher};
use crate::progress::Console;
use crate::rng::Rng;

/// How images are chosen from a pool, class by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PoolSelection {
    /// The first ones: no selection, for comparison
    First,
    /// Those that the teacher is surest of
    Confident,
    /// Those nearest to the centres of k-means in the teacher's features
    Clusters,
    /// Those whose mean is near the pool's in the teacher's features
    Herding,
    /// Of each cluster of those that the teacher recognizes, the one that it is surest of
    Mix,
}

impl PoolSelection {
    pub fn as_str(self) -> &'static str {
        match self {
            PoolSelection::First => "first",
            PoolSelection::Confident => "confident",
            PoolSelection::Clusters => "clusters",
            PoolSelection::Herding => "herding",
            PoolSelection::Mix => "mix",
        }
    }

    /// The indices of `per_class` images of each class that the pool has any of, which must be as many, in order of class,
    /// then of choice. `features` are the teacher's of the pool, asked for where they are needed; `seed` is that of k-means.
    pub fn choose(
        self,
        teacher: &Teacher,
        features: impl FnOnce() -> Result<Features>,
        pool: &ImageSet,
        (per_class, seed): (usize, u64),
        console: &Console,
    ) -> Result<Vec<usize>> {
        let mut classes: Vec<(usize, Vec<usize>)> = pool.by_class().into_iter().enumerate().collect();
        classes.retain(|(_, members)| !members.is_empty());
        if self == PoolSelection::First {
            return Ok(classes.iter().flat_map(|(_, members)| members[..per_class].to_vec()).collect());
        }
        let features = features()?;
        if self == PoolSelection::Herding {
            let of_class: Vec<Vec<usize>> = classes.into_iter().map(|(_, members)| members).collect();
            return herding(&features, &of_class, per_class);
        }
        let view = View { features, certainty: certainty(&teacher.logits(pool, console)?, pool), seed };
        let chosen = classes.par_iter().map(|(class, members)| match self {
            PoolSelection::Clusters => view.central(*class, members, per_class),
            PoolSelection::Mix => view.surest_of_clusters(*class, members, per_class),
            _ => view.surest(members, per_class),
        });
        Ok(chosen.collect::<Vec<_>>().concat())
    }
}

/// What a teacher sees in a pool.
struct View {
    features: Features,
    certainty: Vec<Certainty>,
    seed: u64,
}

/// How sure a teacher is that an image is of its class.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Certainty {
    /// Whether it takes no other class for likelier.
    recognized: bool,
    /// log p(class)
    log_p: f64,
}

/// Of each image, from logits (N, classes).
fn certainty(logits: &[f32], pool: &ImageSet) -> Vec<Certainty> {
    let rows = logits.chunks(pool.classes.len()).zip(&pool.labels);
    rows.map(|(row, &label)| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from(v - most).exp()).sum();
        let own = row[usize::from(label)];
        Certainty { recognized: own == most, log_p: f64::from(own - most) - sum.ln() }
    })
    .collect()
}

impl View {
    /// The `count` images of the highest probability, the surest first.
    fn surest(&self, members: &[usize], count: usize) -> Vec<usize> {
        let mut order = members.to_vec();
        order.sort_by(|&a, &b| self.certainty[b].log_p.total_cmp(&self.certainty[a].log_p));
        order.truncate(count);
        order
    }

    /// The image nearest to the centre of each of `count` clusters.
    fn central(&self, class: usize, members: &[usize], count: usize) -> Vec<usize> {
        let (centres, clusters) = self.clusters(class, members, count);
        let nearest = |(centre, cluster): (&Vec<f64>, &Vec<usize>)| {
            cluster[extreme(&squared_distances(&self.features, cluster, centre), |a, b| a < b)]
        };
        centres.iter().zip(&clusters).map(nearest).collect()
    }

    /// The surest image of each of `count` clusters of those that are recognized; where these are too few, the surest of
    /// the others join them.
    fn surest_of_clusters(&self, class: usize, members: &[usize], count: usize) -> Vec<usize> {
        let (mut known, others): (Vec<usize>, Vec<usize>) =
            members.iter().partition(|&&image| self.certainty[image].recognized);
        known.extend(self.surest(&others, count.saturating_sub(known.len())));
        let (_, clusters) = self.clusters(class, &known, count);
        clusters.iter().flat_map(|cluster| self.surest(cluster, 1)).collect()
    }

    /// The centres and the images of `count` clusters.
    fn clusters(&self, class: usize, members: &[usize], count: usize) -> (Vec<Vec<f64>>, Vec<Vec<usize>>) {
        let mut rng = Rng::stream(self.seed, "k-means", class as u32, 0);
        let found = k_means(&self.features, members, count, &mut rng);
        let mut clusters = vec![Vec::new(); count];
        found.of.iter().zip(members).for_each(|(&cluster, &image)| clusters[cluster].push(image));
        (found.centres, clusters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(labels: &[u16]) -> ImageSet {
        let class = |name: &str| crate::data::Class { name: name.into(), id: name.into() };
        let classes = vec![class("a"), class("b")].into();
        ImageSet { pixels: vec![0; labels.len() * 12], labels: labels.to_vec(), size: 2, classes }
    }

    #[test]
    fn certainty_is_the_log_of_softmax() {
        let found = certainty(&[0.0, 3f32.ln(), 1000.0, 0.0], &pool(&[0, 0]));
        assert!(!found[0].recognized && (found[0].log_p - 0.25f64.ln()).abs() < 1e-6, "{found:?}");
        assert!(found[1].recognized && found[1].log_p == 0.0, "{found:?}");
    }

    /// Six images on a line, of which the two in the middle are not recognized.
    fn view() -> View {
        let features = Features { values: vec![0.0, 1.0, 50.0, 51.0, 100.0, 101.0], dims: 1 };
        let known = |log_p| Certainty { recognized: true, log_p };
        let wrong = |log_p| Certainty { recognized: false, log_p };
        let certainty = vec![known(-0.1), known(-0.3), wrong(-2.0), wrong(-1.0), known(-0.4), known(-0.2)];
        View { features, certainty, seed: 0 }
    }

    #[test]
    fn each_way_keeps_what_it_says() {
        let (view, all) = (view(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(view.surest(&all, 3), [0, 5, 1]);
        let sorted = |mut chosen: Vec<usize>| {
            chosen.sort_unstable();
            chosen
        };
        assert_eq!(sorted(view.surest_of_clusters(0, &all, 2)), [0, 5]);
        // Five are asked for and four are known: the surest of the others is the fifth.
        assert_eq!(sorted(view.surest_of_clusters(0, &all, 5)), [0, 1, 3, 4, 5]);
        let central = sorted(view.central(0, &all, 3));
        assert!(central[0] < 2 && (2..4).contains(&central[1]) && central[2] >= 4, "{central:?}");
    }
}
