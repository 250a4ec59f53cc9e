//! Views made anew on a working day: those who read and write notice nothing.

use journeys::{Blog, Load, Onlooker};

#[tokio::test]
async fn nobody_notices_a_rebuild_its_switch_and_the_way_back() {
    let blog = Blog::start().await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);
    let mut load = Load::begin(&authors, 400);
    let published = load.published();
    let onlookers =
        [Onlooker::of(&blog.reader(), &published), Onlooker::of(authors[0].reader(), &published)];
    load.reached(50).await;

    let (content, said) =
        blog.projector_tool(&["rebuild", "--rebuild-part-events=20", "--rebuild-share=30"]).await;
    assert!(content && said.contains("Generation 2 is active"), "{said}");
    for onlooker in &onlookers {
        onlooker.reads_on(100).await;
    }
    let (content, said) = blog.projector_tool(&["rollback"]).await;
    assert!(content && said.contains("From generation 2 back to generation 1"), "{said}");
    for onlooker in &onlookers {
        onlooker.reads_on(100).await;
    }

    let outcome = load.end().await;
    blog.has_kept_its_word(&outcome).await;
    for onlooker in onlookers {
        onlooker.saw_nothing_wrong().await;
    }
    for generation in ["1", "2"] {
        let (content, said) = blog.projector_tool(&["verify", "--generation", generation]).await;
        assert!(content && said.contains(" 0 differences"), "{said}");
    }
}
