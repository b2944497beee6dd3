//! What the program says of itself: help, manual pages, completions, the reference of the configuration, its version.
//!
//! docs/commands.md and docs/configuration.md are printed by the program. After a change of options or keys,
//! `DISTILL_WRITE_DOCS=1 cargo test --test cli documents` writes them again.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use distill::cli::Cli;

use crate::Place;

/// Every command from the program itself down: "", "train", "data info", ...
fn commands() -> Vec<String> {
    fn collect(command: &clap::Command, name: &str, out: &mut Vec<String>) {
        out.push(name.to_string());
        for sub in command.get_subcommands() {
            collect(sub, format!("{name} {}", sub.get_name()).trim_start(), out);
        }
    }
    let mut out = Vec::new();
    collect(&Cli::command(), "", &mut out);
    out
}

/// Compares a document with what the program prints, or writes it.
fn up_to_date(document: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    if std::env::var_os("DISTILL_WRITE_DOCS").is_some() {
        fs::write(&path, printed).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let line = written.lines().zip(printed.lines()).position(|(a, b)| a != b);
    assert!(
        written == printed,
        "docs/{document} is not what the program prints (first difference: line {:?}); \
         DISTILL_WRITE_DOCS=1 cargo test --test cli documents",
        line.map(|n| n + 1)
    );
}

#[test]
fn the_page_of_commands_is_their_help() {
    let place = Place::new();
    let mut page = String::from(
        "# Commands\n\nWhat `distill COMMAND --help` prints. `distill man --out DIR` writes the same as manual pages, and\n\
         `distill completions SHELL` prints completions for bash, zsh, fish, elvish and PowerShell.\n",
    );
    for command in commands() {
        let help = place.ok(&format!("{command} --help"));
        page += &format!("\n## {}\n\n```text\n{}\n```\n", format!("distill {command}").trim_end(), help.trim_end());
    }
    up_to_date("commands.md", &page);
}

#[test]
fn the_page_of_keys_is_made_of_the_types() {
    let place = Place::new();
    let page = place.ok("presets --keys");
    up_to_date("configuration.md", &page);

    // Against the presets themselves, which the program cannot load with a key too many or too few.
    let keys = place.json("presets --keys");
    let described: Vec<&str> = keys.as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
    let preset: toml::Table = place.ok("presets shapes").parse().unwrap();
    let mut in_preset = Vec::new();
    leaves(&preset, "", &mut in_preset);
    assert!(in_preset.iter().all(|key| described.contains(&key.as_str())), "{in_preset:?}");
    assert_eq!(described.len(), in_preset.len());
    for key in keys.as_array().unwrap() {
        assert!(key["text"].as_str().unwrap().len() > 5, "{} has no description", key["key"]);
        assert!(page.contains(&format!("| `{}` |", key["key"].as_str().unwrap())));
    }
}

fn leaves(table: &toml::Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => leaves(inner, &format!("{prefix}{key}."), out),
            _ => out.push(format!("{prefix}{key}")),
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::new();
    place.ok("man --out pages");
    for command in commands() {
        let name = format!("distill {command}").trim_end().replace(' ', "-");
        let page = fs::read_to_string(place.path("pages").join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{name}");
        assert!(page.contains(".SH SYNOPSIS") && page.contains("\\-\\-help"), "{name}");
        assert!(!page.contains("instruction sets"), "{name} tells of the machine that it was made on");
        if let Some(problems) = piped(Command::new("mandoc").args(["-T", "lint", "-W", "error"]), &page) {
            assert!(problems.is_empty(), "{name}: {problems}");
        }
    }
    assert_eq!(fs::read_dir(place.path("pages")).unwrap().count(), commands().len());
    assert_eq!(place.ok("man"), fs::read_to_string(place.path("pages/distill.1")).unwrap());
}

#[test]
fn completions_are_scripts_of_their_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.ok(&format!("completions {shell}"));
        for word in ["inspect", "data-dir", "cifar100-cpu", "tinyimagenet", "challenge", "convnet"] {
            assert!(script.contains(word) || shell == "elvish" || shell == "powershell", "{shell}: {word}");
        }
        if let Some(problems) = piped(Command::new(shell).arg("-n"), &script) {
            assert!(problems.is_empty(), "{shell}: {problems}");
        }
    }
}

/// What bash itself offers after a line that ends in the middle of a word.
#[test]
fn bash_completes_values() {
    let place = Place::new();
    fs::write(place.path("script"), place.ok("completions bash")).unwrap();
    for (words, expected) in [
        ("distill tra", "train"),
        ("distill train --preset cifar100-", "cifar100-cpu"),
        ("distill train --dataset tiny", "tinyimagenet"),
        ("distill eval --protocol ch", "challenge"),
        ("distill eval --student c", "convnet"),
        ("distill data ver", "verify"),
    ] {
        let last = words.split(' ').count() - 1;
        let script = format!(
            "source ./script; COMP_WORDS=({words}); COMP_CWORD={last}; \
             _distill distill \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        let Ok(output) = Command::new("bash").args(["-c", &script]).current_dir(place.path("")).output() else {
            return println!("skipped: there is no bash");
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{words}");
    }
}

/// What a program says of `input`; none, and a word about it, where the program is not installed.
fn piped(command: &mut Command, input: &str) -> Option<String> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: {:?} is not installed", command.get_program());
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let code = if output.status.success() { "" } else { "failed\n" };
    Some(format!("{code}{}", String::from_utf8_lossy(&said)).trim().to_string())
}

#[test]
fn the_version_is_one_line_or_tells_of_the_machine() {
    let place = Place::new();
    assert_eq!(place.ok("-V").trim(), format!("distill {}", env!("CARGO_PKG_VERSION")));
    let long = place.ok("--version");
    for line in ["commit:", "system:", "processor:", "instruction sets:"] {
        assert!(long.lines().any(|l| l.starts_with(line)), "{long}");
    }
}

/// The man and completions of a shell that is not named, options that are misspelt, colours that nobody asked for.
#[test]
fn nothing_is_coloured_where_no_terminal_is() {
    let place = Place::new();
    for args in ["--help", "train --help", "trian", "train --sead 1", "presets", "runs"] {
        let output = place.command(args).env("TERM", "xterm-256color").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.contains(&0x1b), "{args}: {}", String::from_utf8_lossy(&said));
    }
}
