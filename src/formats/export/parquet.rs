//! Parquet as Hugging Face's `datasets` keeps images: columns `image` {bytes, path} and `label`, and the features as JSON
//! in the file's metadata, which make them an Image and a ClassLabel.

use std::io;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::super::unique_names;
use super::{Images, Sink, png};
use crate::distilled::{FileNames, Listing};

/// Images of a row group: what a reader must take at once.
const ROWS: usize = 100;
const SCHEMA: &str = "message schema {
    OPTIONAL group image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
    OPTIONAL INT64 label;
}";

pub fn write(set: &Listing, images: Images, out: &mut dyn Sink) -> io::Result<()> {
    let features = json!({ "info": { "features": {
        "image": { "_type": "Image" },
        "label": { "names": unique_names(&set.classes), "_type": "ClassLabel" },
    } } });
    let properties = WriterProperties::builder()
        .set_created_by("distill version 1".into()) // no version of ours: the same set gives the same bytes
        .set_compression(Compression::UNCOMPRESSED) // PNG is compressed
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_string(), features.to_string())]))
        .build();
    let mut writer = SerializedFileWriter::new(out, Arc::new(parse_message_type(SCHEMA)?), Arc::new(properties))?;
    let names = FileNames::new(&set.classes, set.ipc());
    let mut places = vec![0; set.classes.len()];
    for labels in set.labels.chunks(ROWS) {
        let mut rows = Rows::default();
        for (&label, image) in labels.iter().zip(&mut *images) {
            rows.bytes.push(png(&image?, set.size)?.into());
            let place = &mut places[usize::from(label)];
            rows.paths.push(names.file(label, *place).as_bytes().into());
            rows.labels.push(label.into());
            *place += 1;
        }
        let mut group = writer.next_row_group()?;
        rows.write(&mut group)?;
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

/// The columns of a row group.
#[derive(Default)]
struct Rows {
    bytes: Vec<ByteArray>,
    paths: Vec<ByteArray>,
    labels: Vec<i64>,
}

impl Rows {
    /// Every value is there, which the definition levels say: 2 inside of an optional group, else 1.
    fn write<W: io::Write + Send>(&self, group: &mut SerializedRowGroupWriter<W>) -> Result<()> {
        let (inside, outside) = (vec![2; self.labels.len()], vec![1; self.labels.len()]);
        for bytes in [&self.bytes, &self.paths] {
            if let Some(mut column) = group.next_column()? {
                column.typed::<ByteArrayType>().write_batch(bytes, Some(&inside), None)?;
                column.close()?;
            }
        }
        if let Some(mut column) = group.next_column()? {
            column.typed::<Int64Type>().write_batch(&self.labels, Some(&outside), None)?;
            column.close()?;
        }
        Ok(())
    }
}
