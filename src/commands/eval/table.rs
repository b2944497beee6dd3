//! The comparison as a table: a row for each set, or with several students a row for each and a column for each set.

use super::compare::{Comparison, Line};

/// For people at a terminal.
pub fn text(comparison: &Comparison) -> String {
    let cells = cells(comparison);
    let widths: Vec<usize> = (0..cells[0].len())
        .map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in &cells {
        let padded = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        out += &format!("{}\n", padded.collect::<String>().trim_end());
    }
    out + &format!("{}\n", caption(comparison))
}

/// For documents.
pub fn markdown(comparison: &Comparison) -> String {
    let cells = cells(comparison);
    let line = |row: &[String]| format!("| {} |\n", row.join(" | "));
    let rule = format!("| --- |{}\n", " ---: |".repeat(cells[0].len() - 1));
    let rows: String = cells[1..].iter().map(|row| line(row)).collect();
    format!("{}{rule}{rows}\n{}\n", line(&cells[0]), caption(comparison))
}

fn caption(comparison: &Comparison) -> String {
    let Comparison { dataset, ipc, protocol, split, seed, rows } = comparison;
    let real = rows.iter().find(|line| line.row == "real").map(|line| &line.result.protocol);
    let real = real.map_or(String::new(), |protocol| format!(", real under {protocol}"));
    format!("accuracy in % on {dataset} {split}, {ipc} images a class, protocol {protocol}{real}, seed {seed}")
}

/// The table, its head first.
fn cells(comparison: &Comparison) -> Vec<Vec<String>> {
    let lines = &comparison.rows;
    let mut students: Vec<&str> = Vec::new();
    for line in lines.iter().filter(|line| line.row == lines[0].row) {
        students.push(&line.student);
    }
    if let [_] = students[..] {
        let head = ["trained on", "images", "runs", "mean", "std", "gap to full data", "gain over random-real"];
        let mut cells = vec![head.map(String::from).to_vec()];
        cells.extend(lines.iter().map(of_line));
        return cells;
    }
    let of_student = |student: &str| lines.iter().filter(move |line| line.student == student).collect::<Vec<_>>();
    let mut head = vec!["student".to_string()];
    head.extend(of_student(students.first().unwrap_or(&"")).iter().map(|line| line.row.to_string()));
    let mut cells = vec![head];
    for student in students {
        let mut row = vec![student.to_string()];
        row.extend(of_student(student).iter().map(|line| spread(line)));
        cells.push(row);
    }
    cells
}

fn of_line(line: &Line) -> Vec<String> {
    let signed = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:+.2}"));
    let result = &line.result;
    vec![
        line.row.into(),
        result.images.to_string(),
        result.runs.len().to_string(),
        format!("{:.2}", result.accuracy_mean),
        result.accuracy_std.map_or("-".into(), |std| format!("{std:.2}")),
        line.gap.map_or("-".into(), |gap| format!("{gap:.2}")),
        signed(line.gain.filter(|_| line.row != "random-real")),
    ]
}

fn spread(line: &Line) -> String {
    let std = line.result.accuracy_std.map_or(String::new(), |std| format!(" +- {std:.2}"));
    format!("{:.2}{std}", line.result.accuracy_mean)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::environment::Environment;
    use crate::eval::Protocol;

    fn line(row: &'static str, student: &str, mean: f64, gap: Option<f64>, gain: Option<f64>) -> Line {
        let protocol = Protocol::named(if row == "real" { "steps" } else { "quick" }).unwrap();
        let result = json!({
            "student": student, "protocol": protocol.name, "dataset": "shapes", "ipc": 1, "accuracy_mean": mean,
            "accuracy_std": 0.5, "runs": [mean, mean], "on": row, "split": "test", "images": 10, "test_images": 5,
            "seed": 0, "per_class": [], "seconds": 1.0, "environment": Environment::of(&candle_core::Device::Cpu),
            "protocol_settings": protocol, "protocol_sha256": "", "labels": "hard", "train_sha256": "", "test_sha256": "",
        });
        let result = serde_json::from_value(result).unwrap();
        Line { row, student: student.into(), gap, gain, file: "eval.json".into(), result }
    }

    fn comparison(rows: Vec<Line>) -> Comparison {
        let (dataset, protocol, split) = ("shapes".into(), "quick".into(), "test".into());
        Comparison { dataset, ipc: 1, protocol, split, seed: 0, rows }
    }

    #[test]
    fn one_student_has_a_row_for_each_set() {
        let rows = vec![
            line("random-real", "convnet", 20.0, Some(30.0), Some(0.0)),
            line("distilled", "convnet", 15.5, Some(34.5), Some(-4.5)),
            line("real", "convnet", 50.0, Some(0.0), Some(30.0)),
        ];
        let expected = "\
            trained on   images  runs   mean   std  gap to full data  gain over random-real\n\
            random-real      10     2  20.00  0.50             30.00                      -\n\
            distilled        10     2  15.50  0.50             34.50                  -4.50\n\
            real             10     2  50.00  0.50              0.00                 +30.00\n\
            accuracy in % on shapes test, 1 images a class, protocol quick, real under steps, seed 0\n";
        assert_eq!(text(&comparison(rows)), expected);
    }

    #[test]
    fn several_students_have_a_row_each_and_sets_a_column() {
        let rows = vec![
            line("random-real", "convnet", 20.0, None, None),
            line("random-real", "mlp", 10.0, None, None),
            line("distilled", "convnet", 21.0, None, None),
            line("distilled", "mlp", 9.0, None, None),
        ];
        let expected = "\
            | student | random-real | distilled |\n\
            | --- | ---: | ---: |\n\
            | convnet | 20.00 +- 0.50 | 21.00 +- 0.50 |\n\
            | mlp | 10.00 +- 0.50 | 9.00 +- 0.50 |\n\n\
            accuracy in % on shapes test, 1 images a class, protocol quick, seed 0\n";
        assert_eq!(markdown(&comparison(rows)), expected);
    }
}
