//! What the services tell about themselves in numbers.

use std::collections::{BTreeMap, BTreeSet};

use journeys::Blog;
use serde_json::json;
use testkit::workspace_root;

#[tokio::test]
async fn every_number_is_explained_in_the_docs() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let post = anne.publish("On numbers").await;
    let post = anne.revise(&post, json!({ "summary": "They count." })).await;
    testkit::eventually("the post is in the list", async || {
        blog.reader().finds(&post, "").await && blog.reader().can_read(&post).await
    })
    .await;

    for service in [&blog.command, &blog.projector, &blog.query] {
        let documented = documented(service.name());
        for (name, (kind, labels)) in exported(&service.metrics().await) {
            let explained = documented.get(&name);
            assert_eq!(explained, Some(&(kind, labels)), "{name} of the {}", service.name());
        }
    }
}

/// Kind and labels of each metric.
type Kinds = BTreeMap<String, (String, BTreeSet<String>)>;

/// Reads the text format of Prometheus.
fn exported(text: &str) -> Kinds {
    let mut kinds = Kinds::new();
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            let (name, kind) = named.split_once(' ').expect("no kind");
            kinds.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{') {
            let names = ["_bucket", "_sum", "_count"].iter();
            let base =
                names.filter_map(|end| name.strip_suffix(end)).find(|n| kinds.contains_key(*n));
            let labels = rest
                .split_once('}')
                .expect("labels that do not end")
                .0
                .split(',')
                .filter(|label| !label.is_empty());
            let labels = labels.filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
            let (_, known) = kinds.get_mut(base.unwrap_or(name)).expect("no kind");
            known.extend(labels.filter(|label| label != "le"));
        }
    }
    kinds
}

/// Reads the table of a service.
fn documented(service: &str) -> Kinds {
    let page = std::fs::read_to_string(workspace_root().join("docs/METRICS.md")).expect("no page");
    let (_, section) = page.split_once(&format!("## {service}\n")).expect("no table");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
        (cells[0].to_owned(), (cells[1].to_owned(), labels))
    })
    .collect()
}
