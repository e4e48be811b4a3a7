//! A page as one HTML file: its style and its pictures are inside, it loads nothing.

use crate::record::page::{Block, Cell, Column, Picture, Table};
use base64::Engine;
use std::fmt::Write;

static STYLE: &str = include_str!("style.css");

/// The HTML of a page.
pub(super) fn page(title: &str, blocks: &[Block]) -> String {
    let title = words(title);
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n\
         {STYLE}</style></head>\n<body>\n<header><h1>{title}</h1></header>\n{}<main>\n",
        contents(blocks)
    );
    for block in blocks {
        match block {
            Block::Heading(level, heading) => {
                let (name, heading) = (anchor(heading), words(heading));
                let _ = writeln!(text, "<h{level} id=\"{name}\">{heading}</h{level}>");
            }
            Block::Text(paragraph) => {
                let _ = writeln!(text, "<p>{}</p>", words(paragraph));
            }
            Block::Code(_, code) => {
                let _ = writeln!(text, "<pre><code>{}</code></pre>", escape(code));
            }
            Block::Table(of) => table(of, &mut text),
            Block::Pictures(all) => pictures(all, &mut text),
        }
    }
    text + "</main>\n</body></html>\n"
}

// Links to the parts, and below each to its tables.
fn contents(blocks: &[Block]) -> String {
    let mut parts: Vec<(&str, Vec<&str>)> = Vec::new();
    for block in blocks {
        match (block, parts.last_mut()) {
            (Block::Heading(2, heading), _) => parts.push((heading, Vec::new())),
            (Block::Heading(_, heading), Some(part)) => part.1.push(heading),
            _ => {}
        }
    }
    let link = |heading: &str| format!("<a href=\"#{}\">{}</a>", anchor(heading), words(heading));
    let mut text = String::from("<nav><ul>\n");
    for (part, tables) in parts {
        let below: Vec<String> = tables.into_iter().map(link).collect();
        let below = match below.is_empty() {
            true => String::new(),
            false => format!("<br><small>{}</small>", below.join(" &middot; ")),
        };
        let _ = writeln!(text, "<li>{}{below}</li>", link(part));
    }
    text + "</ul></nav>\n"
}

fn table(table: &Table, text: &mut String) {
    text.push_str("<div class=\"scroll\"><table>\n<thead>");
    let parts: Vec<&[Column]> = table.columns.chunk_by(|a, b| a.source == b.source).collect();
    if parts.len() > 1 {
        text.push_str("<tr class=\"sources\">");
        for part in parts {
            let (wide, source) = (part.len(), words(part[0].source));
            let _ = write!(text, "<th colspan=\"{wide}\">{source}</th>");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("<tr>");
    for column in &table.columns {
        let _ = write!(text, "<th>{}</th>", words(&column.name));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        text.push_str("<tr>");
        for of in row {
            text.push_str(&cell(of));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
}

fn cell(of: &Cell) -> String {
    let (class, text) = match of {
        Cell::Text(text) => ("text", words(text)),
        Cell::Number(text) => ("number", words(text)),
        Cell::Published(text) => ("number published", words(text)),
        Cell::Origin(text) => ("origin", words(text)),
        Cell::Missing(text) => ("missing", words(text)),
        Cell::Commands(all) => {
            let all = all.iter().map(|one| format!("<code>{}</code>", escape(one)));
            ("command", all.collect::<Vec<_>>().join("<br>"))
        }
    };
    format!("<td class=\"{class}\">{text}</td>")
}

fn pictures(all: &[Picture], text: &mut String) {
    text.push_str("<div class=\"pictures\">\n");
    for Picture { caption, png, pixels, .. } in all {
        let class = if *pixels { "pixels" } else { "drawing" };
        let data = base64::engine::general_purpose::STANDARD.encode(png);
        let _ = writeln!(
            text,
            "<figure><img class=\"{class}\" alt=\"{}\" src=\"data:image/png;base64,{data}\">\
             <figcaption>{}</figcaption></figure>",
            escape(caption),
            words(caption)
        );
    }
    text.push_str("</div>\n");
}

/// The name of a heading in links.
fn anchor(heading: &str) -> String {
    let plain: String =
        heading.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.to_ascii_lowercase()
}

fn words(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => strong(&escape(part)),
        _ => format!("<code>{}</code>", escape(part)),
    });
    parts.collect()
}

// Makes the text between two `**` bold.
fn strong(text: &str) -> String {
    let parts: Vec<&str> = text.split("**").collect();
    if parts.len().is_multiple_of(2) {
        return text.to_string();
    }
    let parts = parts.iter().enumerate().map(|(i, part)| match i % 2 {
        0 => (*part).to_string(),
        _ => format!("<strong>{part}</strong>"),
    });
    parts.collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
