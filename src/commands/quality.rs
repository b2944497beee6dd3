//! `distill quality`: what a distilled set's images are like beside real ones, in the features of a teacher.

mod figures;
mod inception;

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use self::figures::{Distances, Reference};
use self::inception::{InInception, Judge};
use super::eval::{run_of, stem_of};
use super::resolve::shortened;
use super::{fetch, print, to_json};
use crate::cli::{Against, QualityArgs};
use crate::data::{Dataset, ImageSet, Split};
use crate::distilled::{self, DistilledSet};
use crate::environment::Environment;
use crate::error::Result;
use crate::eval::quality::nearest;
use crate::eval::{Features, Teacher};
use crate::fs::{lock, make_folder, write_atomic};
use crate::picture::save_grid;
use crate::progress::Console;
use crate::run_dir::newest_distilled;

/// Pairs in nearest.png, in rows of so many.
const PAIRS: usize = 30;
const COLUMNS: usize = 10;

/// What quality.json holds of one set of images.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    images: usize,
    #[serde(flatten)]
    distances: Distances,
    /// Share of the images that the teacher takes for what their label says.
    label_agreement: f64,
    /// Median distance of an image's features from its nearest train image's.
    nearest_distance: f64,
}

/// What quality.json holds.
#[derive(Serialize)]
struct Quality {
    on: String,
    /// Of the generated images, as in eval.json.
    images_sha256: String,
    dataset: String,
    #[serde(flatten)]
    generated: Figures,
    /// The same of as many test images a class, for comparison.
    real: Figures,
    /// The real images compared with: "train", "test" or "heldout".
    against: String,
    against_sha256: String,
    /// Of the train images among which neighbours are looked for.
    train_sha256: String,
    neighbours: usize,
    teacher: String,
    teacher_sha256: String,
    /// Percent of the test split that the teacher classifies correctly, if that is known.
    teacher_accuracy: Option<f64>,
    /// Where Inception's weights were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    inception: Option<InInception>,
    /// Wall-clock time of it all.
    seconds: f64,
    environment: Environment,
}

pub fn run(args: &QualityArgs, console: &Console) -> Result<()> {
    let out = &args.common.out;
    let path = match &args.on {
        Some(path) => path.clone(),
        None => newest_distilled(args.run.as_deref().unwrap_or(out))?,
    };
    let listing = distilled::open(&path)?.listing;
    let dataset = listing.provenance.dataset;
    let teacher = Teacher::locate(args.teacher.as_deref(), out, &dataset, listing.size)?;
    let folder = run_of(&path).map_or_else(|| out.join("eval"), |run| run.eval());
    let output = folder.join(format!("{}-quality-{}", shortened(stem_of(&path)), args.against.as_str()));
    if args.common.dry_run {
        let written = output.join("quality.json");
        if args.common.json {
            return print(&to_json(&json!({ "on": path, "teacher": teacher, "outputs": [written] }))?);
        }
        return print(&format!(
            "{} in the features of {}\nwrites {}",
            path.display(),
            teacher.display(),
            written.display()
        ));
    }
    let result = measure((&path, &dataset), &teacher, &output, args, console)?;
    write_atomic(&output.join("quality.json"), to_json(&result)?.as_bytes())?;
    console.info(format!("wrote {} and nearest.png", output.join("quality.json").display()));
    if args.common.json { print(&to_json(&result)?) } else { print(table(&result).trim_end()) }
}

/// Measures the set at `path` and draws nearest.png into the folder `output`.
fn measure(
    (path, dataset): (&Path, &Dataset),
    teacher_folder: &Path,
    output: &Path,
    args: &QualityArgs,
    console: &Console,
) -> Result<Quality> {
    let start = Instant::now();
    let device = args.common.device.open()?;
    let teacher = Teacher::open(teacher_folder, &device)?;
    let features = args.common.out.join("eval/inception");
    let judge = args.inception.as_deref().map(|file| Judge::open(file, features, console)).transpose()?;
    let generated = DistilledSet::read(path)?.images;
    teacher.check(&generated)?;
    let load = |split| fetch::load(dataset, split, generated.size, &args.common, console);
    let Real { train, against, counterpart } =
        Real::new(load(Split::Train)?, load(Split::Test)?, &generated, args.against)?;
    make_folder(output)?;
    let _lock = lock(&output.join(".lock"), "is measuring into this folder")?;
    let neighbours = args.neighbours as usize;
    let scale = Scale::new(&teacher, &train, &against, neighbours, console)?;
    let (figures, pairs) = scale.measure(&generated, console)?;
    let (real, _) = scale.measure(&counterpart, console)?;
    draw_nearest(&output.join("nearest.png"), &generated, &train, pairs)?;
    Ok(Quality {
        on: path.display().to_string(),
        images_sha256: generated.sha256(),
        dataset: dataset.to_string(),
        generated: figures,
        real,
        against: args.against.as_str().into(),
        against_sha256: against.sha256(),
        train_sha256: train.sha256(),
        neighbours,
        inception: judge.map(|judge| judge.measure(&generated, &counterpart, &against, neighbours)).transpose()?,
        teacher: teacher_folder.display().to_string(),
        teacher_sha256: teacher.sha256.clone(),
        teacher_accuracy: teacher.card.test_accuracy,
        seconds: start.elapsed().as_secs_f64(),
        environment: Environment::of(&device),
    })
}

/// The real images that a set is compared with; but for `train`, of the classes that it has.
struct Real {
    /// All among which neighbours are looked for.
    train: ImageSet,
    against: ImageSet,
    /// As many test images a class as the set has.
    counterpart: ImageSet,
}

impl Real {
    fn new(train: ImageSet, test: ImageSet, generated: &ImageSet, against: Against) -> Result<Self> {
        let present: Vec<bool> = generated.by_class().iter().map(|members| !members.is_empty()).collect();
        let of_present = |set: &ImageSet, mut indices: Vec<usize>| {
            indices.retain(|&i| present[usize::from(set.labels[i])]);
            set.subset(&indices)
        };
        let per_class = generated.len() / present.iter().filter(|&&there| there).count().max(1);
        let smallest = test.by_class().iter().map(Vec::len).filter(|&n| n > 0).min().unwrap_or(1);
        let counterpart = test.random_per_class(per_class.min(smallest), 0)?;
        let counterpart = of_present(&counterpart, (0..counterpart.len()).collect());
        let against = match against {
            Against::Train => of_present(&train, (0..train.len()).collect()),
            Against::Test => of_present(&test, (0..test.len()).collect()),
            Against::Heldout => of_present(&train, train.held_out()),
        };
        Ok(Real { train, against, counterpart })
    }
}

/// The real images' side of every figure.
struct Scale<'a> {
    teacher: &'a Teacher,
    reference: Reference,
    train: Features,
}

impl<'a> Scale<'a> {
    fn new(
        teacher: &'a Teacher,
        train: &ImageSet,
        against: &ImageSet,
        neighbours: usize,
        console: &Console,
    ) -> Result<Self> {
        let of_train = teacher.cached_features(train, console)?;
        let reference = Reference::new(&teacher.cached_features(against, console)?, neighbours)?;
        Ok(Scale { teacher, reference, train: of_train })
    }

    /// The figures of a set, and each image's nearest train image with the distance.
    fn measure(&self, set: &ImageSet, console: &Console) -> Result<(Figures, Vec<(usize, f64)>)> {
        let features = self.teacher.features(set, console)?;
        let pairs = nearest(&features, &self.train);
        let mut distances: Vec<f64> = pairs.iter().map(|&(_, distance)| distance).collect();
        distances.sort_by(f64::total_cmp);
        let figures = Figures {
            images: set.len(),
            distances: self.reference.distances(&features)?,
            label_agreement: self.teacher.agreement(set, console)?,
            nearest_distance: distances[distances.len() / 2],
        };
        Ok((figures, pairs))
    }
}

/// The generated images that are nearest to a train image, each above that image. `pairs`: for each generated image the
/// train image and the distance.
fn draw_nearest(path: &Path, images: &ImageSet, train: &ImageSet, pairs: Vec<(usize, f64)>) -> Result<()> {
    let mut pairs: Vec<(f64, usize, usize)> =
        pairs.into_iter().enumerate().map(|(i, (near, distance))| (distance, i, near)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    pairs.truncate(PAIRS);
    let mut cells = Vec::new();
    for row in pairs.chunks(COLUMNS) {
        let blank = COLUMNS - row.len();
        let white = || std::iter::repeat_n(&[][..], blank);
        cells.extend(row.iter().map(|&(_, i, _)| images.image(i)).chain(white()));
        cells.extend(row.iter().map(|&(_, _, near)| train.image(near)).chain(white()));
    }
    save_grid(path, &cells, images.size, COLUMNS, 2)
}

fn table(result: &Quality) -> String {
    let numbers = |name: &str, generated: f64, real: f64| format!("{name:<34} {generated:>12.4} {real:>16.4}\n");
    let distances = |network: &str, generated: &Distances, real: &Distances| {
        let lines = [
            ("Frechet distance", generated.frechet, real.frechet),
            ("precision", generated.precision, real.precision),
            ("recall", generated.recall, real.recall),
            ("density", generated.density, real.density),
            ("coverage", generated.coverage, real.coverage),
        ];
        lines.map(|(name, generated, real)| numbers(&format!("{network}{name}"), generated, real)).concat()
    };
    let (generated, real) = (&result.generated, &result.real);
    let mut out =
        format!("{:<34} {:>12} {:>16}\n", format!("against {} images", result.against), "generated", "real, of test");
    out += &format!("{:<34} {:>12} {:>16}\n", "images", generated.images, real.images);
    out += &distances("", &generated.distances, &real.distances);
    out += &numbers("label agreement", generated.label_agreement, real.label_agreement);
    out += &numbers("distance to nearest train image", generated.nearest_distance, real.nearest_distance);
    if let Some(found) = &result.inception {
        out += &distances("Inception: ", &found.generated, &found.real);
    }
    out
}
