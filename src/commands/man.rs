//! `distill man`: manual pages, made of the same texts as `--help`.

use std::fs;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::print;
use crate::cli::{Cli, ManArgs};
use crate::error::{AtPath, Error, Result};
use crate::fs::write_atomic;

pub fn run(args: &ManArgs) -> Result<()> {
    // The long version tells of this machine.
    let mut program = Cli::command().disable_help_subcommand(true).long_version(None::<&str>);
    program.build();
    let Some(folder) = &args.out else {
        return print(String::from_utf8_lossy(&page(&program)?).trim_end());
    };
    fs::create_dir_all(folder).at(folder)?;
    write_pages(&program, &mut |name, page| {
        let path = folder.join(format!("{name}.1"));
        write_atomic(&path, page)?;
        print(&path.display().to_string())
    })
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(|e| Error::Failed(format!("the page of {}: {e}", command.get_name())))?;
    Ok(page)
}

/// Hands a command's page to `write` with its name ("distill-data-info"), then those of its subcommands.
fn write_pages(command: &Command, write: &mut dyn FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    write(command.get_display_name().unwrap_or(command.get_name()), &page(command)?)?;
    command.get_subcommands().try_for_each(|sub| write_pages(sub, write))
}
