//! A page as Markdown.

use super::page::{Block, Cell, Table};
use std::fmt::Write;

/// The Markdown of a page.
pub fn markdown(title: &str, blocks: &[Block]) -> String {
    let mut text = format!("# {}\n", words(title));
    for block in blocks {
        match block {
            Block::Heading(level, heading) => {
                let _ = write!(text, "\n{} {}\n", "#".repeat(usize::from(*level)), words(heading));
            }
            Block::Text(paragraph) => {
                let _ = write!(text, "\n{}\n", words(paragraph));
            }
            Block::Code(language, code) => {
                let _ = write!(text, "\n```{language}\n{code}```\n");
            }
            Block::Table(of) => table(of, &mut text),
            Block::Pictures(pictures) => {
                for picture in pictures {
                    let _ = write!(text, "\n![{}]({})\n", words(&picture.caption), picture.file);
                }
            }
        }
    }
    text
}

fn table(table: &Table, text: &mut String) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let heads = table.columns.iter().map(|column| match column.source {
        "" => cell(&column.name),
        source => cell(&format!("{source}: {}", column.name)),
    });
    text.push('\n');
    text.push_str(&line(heads.collect()));
    text.push_str(&format!("|{}\n", "---|".repeat(table.columns.len())));
    for row in &table.rows {
        text.push_str(&line(row.iter().map(of_cell).collect()));
    }
}

fn of_cell(of: &Cell) -> String {
    match of {
        Cell::Text(text)
        | Cell::Number(text)
        | Cell::Published(text)
        | Cell::Origin(text)
        | Cell::Missing(text) => cell(text),
        Cell::Commands(all) => {
            let all: Vec<String> = all.iter().map(|one| cell(&format!("`{one}`"))).collect();
            all.join("<br>")
        }
    }
}

fn cell(text: &str) -> String {
    words(text).replace('|', "\\|").replace('\n', " ")
}

// Escapes what Markdown would take for a tag, outside code.
fn words(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => part.replace('<', "&lt;"),
        _ => part.to_string(),
    });
    parts.collect::<Vec<_>>().join("`")
}
