//! What a reader gets who looks with a browser.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Blog, from_memory};

const TEXT: &str = "# Begin\n\nWrite *every* <b>day</b>.\n\n<script>alert(1)</script>\n";

#[tokio::test]
async fn a_browser_gets_a_page() {
    let blog = Blog::start_without_memory().await;
    let content =
        json!({"content": TEXT, "summary": "A \"short\" <i>one</i>", "tags": ["craft", "R&D"]});
    let id = blog.write("anne", "writing", content).await;
    blog.record(id, json!({"published": {"slug": "writing"}})).await;
    blog.project().await;

    let page = blog.reader().browse("/posts/writing").await;

    assert_eq!((page.status, page.source()), (200, "redis"));
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "public, max-age=0, must-revalidate");
    assert!(page.varies_by("accept") && page.varies_by("authorization"), "{page:?}");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    for part in [
        "<html lang=\"en\">",
        "<title>On writing · Inkstream</title>",
        "<h1>On writing</h1>",
        "<h2>Begin</h2>",
        "<p>Write <em>every</em> &lt;b&gt;day&lt;/b&gt;.</p>",
        "<a rel=\"author\" href=\"/posts?author=anne\">anne</a>",
        "<a rel=\"tag\" href=\"/posts?tag=craft\">craft</a>",
        "<a rel=\"tag\" href=\"/posts?tag=r-and-d\">R&#38;D</a>",
        "<time datetime=\"2",
        "<link rel=\"canonical\" href=\"http://127.0.0.1:8081/posts/writing\">",
        "<meta name=\"description\" content=\"A &#34;short&#34; &#60;i&#62;one&#60;/i&#62;\">",
        "<meta property=\"og:title\" content=\"On writing\">",
        "type=\"application/atom+xml\"",
        "<main id=\"main\"",
        "href=\"#main\"",
    ] {
        assert!(page.text.contains(part), "{part} is missing: {}", page.text);
    }
    assert!(!page.text.contains("<script") && !page.text.contains(" style="), "{}", page.text);
    assert_eq!(blog.reader().browse(&format!("/posts/{id}")).await.text, page.text);
}

#[tokio::test]
async fn a_page_is_the_same_whether_stored_or_folded_anew() {
    let blog = Blog::start_without_memory().await;
    let id = blog.write("anne", "writing", json!({"content": TEXT})).await;
    blog.record(id, json!({"published": {"slug": "writing"}})).await;
    let folded = blog.reader().browse("/posts/writing").await;
    blog.project().await;
    let stored = blog.reader().browse(&format!("/posts/{id}")).await;
    assert_eq!((folded.source(), stored.source()), ("log", "redis"));
    assert_eq!(folded.text, stored.text);
    assert_eq!(folded.header("etag"), stored.header("etag"));
}

#[tokio::test]
async fn the_kept_text_is_used_only_beside_the_page_it_was_made_of() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    blog.replace_text(id, "<p>kept</p>").await;
    let page = blog.reader().browse("/posts/writing").await;
    assert!(page.text.contains("<p>kept</p>"), "{}", page.text);

    // The new address leads past Redis, which has not heard of it, to the log.
    let changes = json!({"revised": {"changes": {"content": "Go on."}, "slug": "reading"}});
    blog.record(id, changes).await;
    let page = blog.reader().browse("/posts/reading").await;
    assert!(page.text.contains("<p>Go on.</p>"), "{}", page.text);
}

#[tokio::test]
async fn who_would_rather_have_json_gets_json() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    for address in ["/posts/writing", "/posts"] {
        for (accept, media_type) in [
            ("*/*", "application/json"),
            ("application/json", "application/json"),
            ("text/html, application/json", "application/json"),
            ("text/html;q=0.5, */*", "application/json"),
            ("image/png", "application/json"),
            ("text/html", "text/html; charset=utf-8"),
            ("text/html, */*;q=0.1", "text/html; charset=utf-8"),
        ] {
            let answer = blog.reader().get_with(address, "accept", accept).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), media_type, "{accept}");
            assert!(answer.varies_by("accept"), "{accept}");
        }
    }
}

#[tokio::test]
async fn a_page_that_is_kept_in_memory_is_sent_in_the_form_that_is_asked_for() {
    let blog = Blog::start_with(&["--memory-ms", "60000"]).await;
    blog.publish("writing").await;
    blog.project().await;
    let page = from_memory(async || blog.reader().browse("/posts/writing").await).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text.contains("<p>Begin.</p>"), "{}", page.text);
    let etag = page.header("etag");
    assert_eq!(blog.reader().browse_unless("/posts/writing", etag).await.status, 304);
    let json = from_memory(async || blog.reader().get_unless("/posts/writing", etag).await).await;
    assert_eq!(json.status, 200);
    assert_eq!(json.json()["title"], "On writing");
    assert_eq!(json.header("vary"), page.header("vary"));
}

#[tokio::test]
async fn a_browser_that_has_the_page_is_not_sent_it_again() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    for address in ["/posts/writing", "/posts"] {
        let json = blog.reader().get(address).await.header("etag").to_owned();
        let etag = blog.reader().browse(address).await.header("etag").to_owned();
        assert_ne!(etag, json, "two forms of one tag");
        let answer = blog.reader().browse_unless(address, &etag).await;
        assert_eq!((answer.status, answer.text.as_str()), (304, ""));
        assert_eq!((answer.header("etag"), answer.source()), (etag.as_str(), "redis"));
        assert!(answer.varies_by("accept"));
        assert_eq!(blog.reader().browse_unless(address, &json).await.status, 200);
        assert_eq!(blog.reader().get_unless(address, &etag).await.status, 200);
    }
    let etag = blog.reader().browse("/posts/writing").await.header("etag").to_owned();
    blog.revise_title(id, "On reading").await;
    blog.project().await;
    let answer = blog.reader().browse_unless("/posts/writing", &etag).await;
    assert!(answer.status == 200 && answer.text.contains("<h1>On reading</h1>"));
}

#[tokio::test]
async fn an_earlier_address_leads_a_browser_on() {
    let blog = Blog::start().await;
    let id = blog.publish("first").await;
    blog.move_to(id, "second").await;
    blog.project().await;
    let answer = blog.reader().browse("/posts/first").await;
    assert_eq!((answer.status, answer.header("location")), (301, "/posts/second"));
    assert!(answer.varies_by("accept"));
}

#[tokio::test]
async fn a_draft_is_a_page_for_its_author_alone() {
    let blog = Blog::start().await;
    let id = blog.draft("secret").await;
    blog.project().await;
    let address = format!("/posts/{id}");
    let page = blog.reader().as_author("anne").browse(&address).await;
    assert_eq!((page.status, page.header("cache-control")), (200, "private, no-store"));
    assert!(page.text.contains("Draft, for your eyes alone") && page.text.contains("noindex"));
    for other in [blog.reader(), blog.reader().as_author("bob")] {
        let page = other.browse(&address).await;
        assert_eq!(page.status, 404);
        assert!(!page.text.contains("secret"));
    }
}

#[tokio::test]
async fn a_browser_is_told_in_a_page_why_there_is_nothing() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.delete(id).await;
    blog.project().await;
    for (address, status, heading) in [
        ("/posts/writing", 410, "Gone"),
        ("/posts/nothing", 404, "Not here"),
        ("/nowhere", 404, "Not here"),
        ("/posts?limt=5", 400, "That cannot be answered"),
        ("/me/posts", 401, "Not for everybody"),
    ] {
        let page = blog.reader().browse(address).await;
        expect_refusal(&page, status, heading);
        let problem = blog.reader().get(address).await;
        assert_eq!(problem.status, status);
        assert!(!problem.code().is_empty() && problem.varies_by("accept"));
    }
    // No list can be had while nothing vouches for it.
    let blog = Blog::start().await;
    let page = blog.reader().browse("/posts").await;
    expect_refusal(&page, 503, "Not at the moment");
    assert_eq!(page.header("retry-after"), "1");
}

#[track_caller]
fn expect_refusal(page: &Answer, status: u16, heading: &str) {
    assert_eq!(page.status, status);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(page.varies_by("accept"));
    assert!(page.text.contains(&format!("<h1>{heading}</h1>")), "{}", page.text);
}

#[tokio::test]
async fn the_list_is_paged_through_by_its_links() {
    let blog = Blog::start().await;
    for number in 0..5 {
        blog.publish_as("anne", &format!("post-{number}"), &["craft"]).await;
    }
    blog.publish_as("bob", "other", &["R&D"]).await;
    blog.project().await;
    for filter in ["tag=craft", "author=anne"] {
        let mut address = format!("/posts?limit=2&{filter}");
        let mut seen = vec![];
        loop {
            let page = blog.reader().browse(&address).await;
            assert_eq!(page.status, 200);
            let links = page.text.split("<h2><a href=\"/posts/").skip(1);
            seen.extend(links.map(|rest| rest.split('"').next().unwrap().to_owned()));
            let Some((_, next)) = page.text.split_once("<a class=\"next\" rel=\"next\" href=\"")
            else {
                break;
            };
            address = next.split('"').next().unwrap().replace("&#38;", "&");
        }
        assert_eq!(seen, ["post-4", "post-3", "post-2", "post-1", "post-0"], "{filter}");
    }
    let page = blog.reader().browse("/posts?tag=craft").await;
    assert!(page.text.contains("<h1>Posts about craft</h1>"), "{}", page.text);
    let page = blog.reader().browse("/posts?tag=r-and-d").await;
    assert!(page.text.contains("<h1>Posts about R&#38;D</h1>"), "{}", page.text);
    let page = blog.reader().browse("/posts?author=anne").await;
    assert!(page.text.contains("<h1>Posts by anne</h1>"), "{}", page.text);
}

#[tokio::test]
async fn what_a_page_needs_is_there_and_kept_for_good() {
    let blog = Blog::start().await;
    blog.project().await;
    let page = blog.reader().browse("/posts").await;
    let paths = page.text.split('"').filter(|part| part.starts_with("/assets/"));
    let paths: Vec<&str> = paths.collect();
    assert_eq!(paths.len(), 2, "{}", page.text);
    for path in paths {
        let asset = blog.reader().get(path).await;
        assert_eq!(asset.status, 200, "{path}");
        assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
        assert!(asset.header("content-type").starts_with("text/css") || path.ends_with(".svg"));
    }
    assert_eq!(blog.reader().get("/assets/style-000000000000.css").await.status, 404);
}

#[tokio::test]
async fn the_root_leads_to_the_posts() {
    let blog = Blog::start().await;
    for answer in [blog.reader().get("/").await, blog.reader().browse("/").await] {
        assert_eq!((answer.status, answer.header("location")), (302, "/posts"));
    }
    assert_eq!(blog.reader().ask(Method::POST, "/").await.status, 405);
}

#[tokio::test]
async fn head_tells_of_a_page_what_get_does() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    let get = blog.reader().browse("/posts/writing").await;
    let head = blog.reader().browse_head("/posts/writing").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for name in ["etag", "content-length", "content-type", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}
