//! Labelled images in a Parquet file, as Hugging Face's `datasets` keeps them: a row an image, columns chosen by name.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type as Physical;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::Value;

use crate::error::{AtPath, Error, Result, guard};
use crate::fail;

/// Names that an image column has in practice, the likelier first.
const IMAGE_COLUMNS: [&str; 2] = ["image", "img"];
/// The same for labels. CIFAR-100 has a coarse label too, which is not the class.
const LABEL_COLUMNS: [&str; 3] = ["label", "labels", "fine_label"];
/// The file metadata under which `datasets` keeps the features, class names among them.
const FEATURES: &str = "huggingface";

/// An opened Parquet file of encoded images and whole-number labels.
pub struct ParquetImages {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    image: String,
    label: String,
}

impl ParquetImages {
    /// Opens the file and finds its two columns: one that holds encoded images (a struct with `bytes`, or plain bytes)
    /// and one of whole numbers. An error if either is missing, or if several could be meant and none has a usual name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).at(path)?;
        let reader = guarded(path, || SerializedFileReader::new(file))?;
        let columns = reader.metadata().file_metadata().schema().get_fields();
        let image = choose(path, "images", columns, &IMAGE_COLUMNS, holds_images)?;
        let label = choose(path, "labels", columns, &LABEL_COLUMNS, holds_labels)?;
        Ok(ParquetImages { path: path.to_path_buf(), reader, image, label })
    }

    /// Images in the file, as its header states.
    pub fn rows(&self) -> usize {
        self.reader.metadata().file_metadata().num_rows().max(0) as usize
    }

    /// The class names in label order, where the file's metadata states them.
    pub fn class_names(&self) -> Option<Vec<String>> {
        let metadata = self.reader.metadata().file_metadata().key_value_metadata()?;
        let text = metadata.iter().find(|entry| entry.key == FEATURES)?.value.as_deref()?;
        let features: Value = serde_json::from_str(text).ok()?;
        let names = features.get("info")?.get("features")?.get(&self.label)?.get("names")?.as_array()?;
        names.iter().map(|name| name.as_str().map(str::to_string)).collect()
    }

    /// Every label, in the file's order; no image is read.
    pub fn labels(&self) -> Result<Vec<i64>> {
        let mut labels = Vec::new();
        self.each(&[&self.label], |row| {
            labels.push(self.label_value(row)?);
            Some(Ok(()))
        })?;
        Ok(labels)
    }

    /// Calls `row` with each image's encoded bytes (PNG, JPEG) and its label, in the file's order.
    pub fn for_each(&self, mut row: impl FnMut(&[u8], i64) -> Result<()>) -> Result<()> {
        self.each(&[&self.image, &self.label], |found| Some(row(self.image_bytes(found)?, self.label_value(found)?)))
    }

    /// Calls `row` with those columns of each row; `None` from it means that one of them is empty.
    fn each(&self, columns: &[&str], mut row: impl FnMut(&Row) -> Option<Result<()>>) -> Result<()> {
        let schema = self.reader.metadata().file_metadata().schema();
        let wanted = schema.get_fields().iter().filter(|column| columns.contains(&column.name()));
        let projection = Type::group_type_builder(schema.name()).with_fields(wanted.cloned().collect()).build();
        let mut rows = guarded(&self.path, || self.reader.get_row_iter(Some(projection?)))?.enumerate();
        while let Some((i, found)) = guarded(&self.path, || Ok(rows.next()))? {
            let found = found.map_err(|e| unreadable(&self.path, &e))?;
            match row(&found) {
                Some(done) => done?,
                None => fail!("{}, row {i}: {} is empty; remove the row", self.path.display(), columns.join(" or ")),
            }
        }
        Ok(())
    }

    fn image_bytes<'a>(&self, row: &'a Row) -> Option<&'a [u8]> {
        match field(row, &self.image)? {
            Field::Bytes(bytes) => Some(bytes.data()),
            Field::Group(image) => match field(image, "bytes")? {
                Field::Bytes(bytes) => Some(bytes.data()),
                _ => None,
            },
            _ => None,
        }
    }

    fn label_value(&self, row: &Row) -> Option<i64> {
        match *field(row, &self.label)? {
            Field::Byte(v) => Some(v.into()),
            Field::Short(v) => Some(v.into()),
            Field::Int(v) => Some(v.into()),
            Field::Long(v) => Some(v),
            Field::UByte(v) => Some(v.into()),
            Field::UShort(v) => Some(v.into()),
            Field::UInt(v) => Some(v.into()),
            Field::ULong(v) => i64::try_from(v).ok(),
            _ => None,
        }
    }
}

fn field<'a>(row: &'a Row, name: &str) -> Option<&'a Field> {
    row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field)
}

/// The column for `what`: the first of `usual` that is there and fits, else the only one that fits.
fn choose(path: &Path, what: &str, columns: &[Arc<Type>], usual: &[&str], fits: fn(&Type) -> bool) -> Result<String> {
    let fitting: Vec<&str> = columns.iter().filter(|c| fits(c)).map(|c| c.name()).collect();
    if let Some(name) = usual.iter().find(|name| fitting.contains(name)) {
        return Ok((*name).to_string());
    }
    match fitting[..] {
        [only] => Ok(only.to_string()),
        _ => {
            let all: Vec<&str> = columns.iter().map(|c| c.name()).collect();
            fail!(
                "{}: cannot tell which column holds the {what}: expected one called {}, found {}; rename it",
                path.display(),
                usual.join(" or "),
                all.join(", ")
            )
        }
    }
}

fn holds_images(column: &Type) -> bool {
    let bytes = |t: &Type| t.is_primitive() && t.get_physical_type() == Physical::BYTE_ARRAY;
    match column.is_group() {
        true => column.get_fields().iter().any(|part| part.name() == "bytes" && bytes(part)),
        false => bytes(column) && IMAGE_COLUMNS.contains(&column.name()),
    }
}

fn holds_labels(column: &Type) -> bool {
    column.is_primitive() && matches!(column.get_physical_type(), Physical::INT32 | Physical::INT64)
}

/// Runs a step of the reader, which panics on some damaged files.
fn guarded<T>(path: &Path, step: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    match guard(step) {
        Some(done) => done.map_err(|e| unreadable(path, &e)),
        None => fail!("{}: is a damaged Parquet file; get it again", path.display()),
    }
}

fn unreadable(path: &Path, problem: &ParquetError) -> Error {
    Error::Failed(format!("{}: cannot be read as Parquet ({problem}); get it again", path.display()))
}
