//! One table of what a network and a server can do, and what comes of each.

use crate::server::{Fault, Reply, Request};
use crate::spoil::{
    cut, damaged, edit, header, longer, longer_body, reset, silence, status, status_with, whole,
    without,
};
use crate::world::{COMMIT, ID, LARGE, OTHER_COMMIT, SMALL, World, content, message};
use consistency::{Context, Result, ensure};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What must come of a row.
enum Outcome {
    /// The file, after so many requests.
    Whole(usize),
    /// An error of these words, after so many requests.
    Refused(usize, &'static [&'static str]),
}
use Outcome::{Refused, Whole};

struct Row {
    name: &'static str,
    file: &'static str,
    revision: &'static str,
    faults: Vec<(Range<usize>, Fault)>,
    outcome: Outcome,
    /// The ranges that were asked for, in order.
    ranges: Vec<&'static str>,
    /// At least and at most so long.
    seconds: (f64, f64),
}

const EVER: usize = usize::MAX;

fn row(name: &'static str, faults: Vec<(Range<usize>, Fault)>, outcome: Outcome) -> Row {
    let (file, revision) = (SMALL, "main");
    Row { name, file, revision, faults, outcome, ranges: vec![], seconds: (0.0, 1.5) }
}

fn refusals() -> Vec<Row> {
    let entry = Row {
        file: "absent.json",
        ..row("no such file", vec![], Refused(1, &["lab/toy has no file absent.json", "main"]))
    };
    let revision = Row {
        revision: "wip",
        ..row("no such revision", vec![], Refused(1, &["lab/toy has no revision wip", SMALL]))
    };
    let pinned = Row {
        revision: COMMIT,
        ..row(
            "another commit",
            vec![(0..EVER, header("x-repo-commit", OTHER_COMMIT))],
            Refused(1, &["was asked for", COMMIT, OTHER_COMMIT]),
        )
    };
    vec![
        entry,
        revision,
        pinned,
        row(
            "401",
            vec![(0..EVER, status(401))],
            Refused(1, &["HF_TOKEN", "status 401", "lab/toy", "check its name", "was refused"]),
        ),
        row(
            "403 gated",
            vec![(0..EVER, status_with(403, "x-error-code", "GatedRepo"))],
            Refused(1, &["gated", "accept its terms at http://127.0.0.1", "lab/toy", "HF_TOKEN"]),
        ),
        row(
            "404 of the repository",
            vec![(0..EVER, status_with(404, "x-error-code", "RepoNotFound"))],
            Refused(1, &["no such repository", "lab/toy", "404"]),
        ),
        row(
            "404 without a reason",
            vec![(0..EVER, status(404))],
            Refused(1, &[SMALL, "lab/toy", "main", "404"]),
        ),
        row("403 of the storage", vec![(1..EVER, status(403))], Refused(2, &["lab/toy", "403"])),
        row("418", vec![(0..EVER, status(418))], Refused(1, &["418"])),
        row("no ETag", vec![(0..EVER, without("etag"))], Refused(1, &["ETag", "HF_ENDPOINT"])),
        row(
            "an ETag that is a path",
            vec![(0..EVER, header("etag", "\"../../evil\""))],
            Refused(1, &["cannot be the name of a file"]),
        ),
        row(
            "an ETag that is hidden",
            vec![(0..EVER, header("etag", "\".x\""))],
            Refused(1, &["cannot be the name of a file"]),
        ),
        row("no commit", vec![(0..EVER, without("x-repo-commit"))], Refused(1, &["X-Repo-Commit"])),
        row(
            "a commit that is a path",
            vec![(0..EVER, header("x-repo-commit", "../../../evil"))],
            Refused(1, &["names the commit"]),
        ),
        row(
            "a redirect to nowhere",
            vec![(0..EVER, status(302))],
            Refused(1, &["no address to redirect to"]),
        ),
        row(
            "a circle",
            vec![(0..EVER, status_with(307, "location", "/lab/toy/resolve/main/unet/config.json"))],
            Refused(6, &["in a circle"]),
        ),
        row(
            "a circle of the content",
            vec![(1..EVER, status_with(302, "location", "?again"))],
            Refused(7, &["redirected more than 5 times"]),
        ),
    ]
}

fn passing() -> Vec<Row> {
    vec![
        row("nothing wrong", vec![], Whole(2)),
        Row {
            seconds: (1.0, 2.5),
            ..row("429, then well", vec![(0..1, status_with(429, "retry-after", "1"))], Whole(3))
        },
        row(
            "429 for ever",
            vec![(0..EVER, status_with(429, "retry-after", "0"))],
            Refused(4, &["429", "fewer requests", "4 attempts"]),
        ),
        row("500 twice", vec![(0..2, status(500))], Whole(4)),
        row("503 of the content", vec![(1..3, status(503))], Whole(4)),
        row("408 and 504", vec![(0..1, status(408)), (1..2, status(504))], Whole(4)),
        row(
            "500 for ever",
            vec![(0..EVER, status(500))],
            Refused(4, &["status 500", "4 attempts", "/lab/toy/resolve/main/unet/config.json"]),
        ),
        row("no word in the headers, once", vec![(0..1, silence(None))], Whole(3)),
        Row {
            seconds: (0.9, 3.0),
            ..row(
                "no word for ever",
                vec![(0..EVER, silence(None))],
                Refused(4, &["said nothing for 0.25 s"]),
            )
        },
        row("a reset", vec![(0..1, reset(true)), (2..3, reset(false))], Whole(4)),
        row(
            "a connection that is closed at once",
            vec![(0..2, edit(|reply| Reply { silent: true, ..reply }))],
            Whole(4),
        ),
        row("no HEAD", vec![(0..1, status(405))], Whole(3)),
    ]
    .into_iter()
    .map(|row| match row.name {
        "no HEAD" => Row { ranges: vec!["bytes=0-0"], ..row },
        _ => row,
    })
    .collect()
}

fn bodies() -> Vec<Row> {
    let resumed = |row: Row| Row { ranges: vec!["bytes=40000-"], ..row };
    let again =
        |row: Row| Row { ranges: vec!["bytes=40000-", "bytes=40000-", "bytes=40000-"], ..row };
    vec![
        resumed(row("cut and gone on with", vec![(1..2, cut(40_000))], Whole(3))),
        resumed(row(
            "cut without a length",
            vec![(1..2, cut(40_000)), (1..2, without("content-length"))],
            Whole(3),
        )),
        again(row(
            "cut for ever",
            vec![(1..EVER, cut(40_000))],
            Refused(5, &["lab/toy", "4 attempts"]),
        )),
        resumed(row("no word in the body, once", vec![(1..2, silence(Some(40_000)))], Whole(3))),
        Row {
            seconds: (0.9, 3.0),
            ..again(row(
                "no word in the body",
                vec![(
                    1..EVER,
                    Arc::new(|request, reply| {
                        silence(Some(40_000 - request.start().unwrap_or(0)))(request, reply)
                    }),
                )],
                Refused(5, &["said nothing"]),
            ))
        },
        resumed(row(
            "a server without ranges",
            vec![(1..2, cut(40_000)), (2..3, whole())],
            Whole(3),
        )),
        resumed(row(
            "the wrong range",
            vec![(1..2, cut(40_000)), (2..3, header("content-range", "bytes 0-59999/100000"))],
            Whole(4),
        )),
        resumed(row("416", vec![(1..2, cut(40_000)), (2..3, status(416))], Whole(4))),
        row("one bit, once", vec![(1..2, damaged())], Whole(3)),
        row(
            "one bit, for ever",
            vec![(1..EVER, damaged())],
            Refused(3, &["git blob hash", "twice"]),
        ),
        row(
            "the hash of another content",
            vec![(0..1, header("etag", "\"00000000000000000000000000000000000000aa\""))],
            Refused(3, &["git blob hash", "twice"]),
        ),
        row("too long, once", vec![(1..2, longer(10))], Whole(3)),
        row(
            "too long",
            vec![(1..EVER, longer(10))],
            Refused(3, &["100010 bytes were to come", "100000 bytes", "twice"]),
        ),
        row(
            "too short",
            vec![(1..EVER, longer(-10))],
            Refused(3, &["99990 bytes were to come", "twice"]),
        ),
        row(
            "too long, without a length",
            vec![(1..EVER, edit(|reply| longer_body(reply, 10).without("content-length")))],
            Refused(3, &["more than", "twice"]),
        ),
        row(
            "another X-Linked-Size",
            vec![(0..1, header("x-linked-size", "99999"))],
            Refused(3, &["99999 bytes", "100000 bytes were to come"]),
        ),
        row("an ETag of another kind", vec![(0..1, header("etag", "W/\"5f-1a\""))], Whole(2)),
    ]
}

fn redirects() -> Vec<Row> {
    let moved = || {
        Arc::new(|request: &Request, reply: Reply| match request.path.strip_prefix("/lab/toy/") {
            Some(rest) => Reply::new(307, "moved").with("location", &format!("/new/toy/{rest}")),
            None => reply,
        })
    };
    vec![
        row("a renamed repository", vec![(0..EVER, moved())], Whole(4)),
        Row { file: LARGE, ..row("another server", vec![], Whole(2)) },
        Row {
            file: LARGE,
            ..row(
                "another server, of no ETag",
                vec![(0..1, without("x-linked-etag"))],
                Refused(1, &["ETag"]),
            )
        },
    ]
}

#[test]
fn every_fault_ends_in_a_whole_file_or_a_clear_error() -> Result<()> {
    for row in [refusals(), passing(), bodies(), redirects()].into_iter().flatten() {
        check(&row).context(row.name)?;
    }
    Ok(())
}

fn check(row: &Row) -> Result<()> {
    let world = World::new(row.name)?;
    for (requests, fault) in &row.faults {
        world.hub.spoil(requests.clone(), Arc::clone(fault));
    }
    let began = Instant::now();
    let got = world.client()?.model(ID, row.revision)?.file(row.file);
    let took = began.elapsed().as_secs_f64();
    let seen = world.hub.seen();
    let wanted = match &row.outcome {
        Whole(requests) => {
            ensure!(std::fs::read(got?)? == content(row.file), "the content is another");
            *requests
        }
        Refused(requests, words) => {
            let text = message(got);
            for word in *words {
                ensure!(text.contains(word), "no {word:?} in: {text}");
            }
            *requests
        }
    };
    ensure!(seen.len() == wanted, "{} requests, {wanted} expected: {seen:?}", seen.len());
    let ranges: Vec<_> = seen.iter().filter_map(|request| request.header("range")).collect();
    ensure!(ranges == row.ranges, "the ranges {ranges:?} were asked for");
    let (least, most) = row.seconds;
    ensure!((least..most).contains(&took), "it took {took} s");
    world.audit()
}
