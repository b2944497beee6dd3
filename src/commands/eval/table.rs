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
        let head = ["trained on", "images", "mean", "std", "gap to full data", "gain over random-real"];
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
