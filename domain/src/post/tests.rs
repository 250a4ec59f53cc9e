//! Given these events, when this is asked, then what?

use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{AuthorId, PostId, Slug};

const ANNE: &str = "anne";
const BOB: &str = "bob";
const POST: PostId = PostId(Uuid::from_u128(0x0192_f0c1_2d3e_7f4a_8b5c_6d7e_8f90_1234));

#[test]
fn a_draft_is_written_once() {
    TestFramework::<Post>::with(())
        .given_no_previous_events()
        .when(draft(ANNE))
        .then_expect_events(vec![drafted()]);
    given([drafted()]).when(draft(ANNE)).then_expect_error(PostError::AlreadyExists);
}

#[test]
fn publishing_a_draft_makes_its_slug_from_the_title() {
    given([drafted()]).when(publish(ANNE)).then_expect_events(vec![published("on-writing")]);
}

#[test]
fn a_taken_slug_is_followed_by_digits_of_the_id() {
    let again =
        PostCommand::Publish { by: id(ANNE), post_id: POST, slug: SlugChoice::FromTitleAndId };
    given([drafted()]).when(again).then_expect_events(vec![published("on-writing-6d7e8f901234")]);
}

#[test]
fn the_slug_comes_from_the_title_as_it_is_now() {
    given([drafted(), revised_title("On reading")])
        .when(publish(ANNE))
        .then_expect_events(vec![published("on-reading")]);
}

#[test]
fn a_slug_that_the_author_asked_for_is_kept() {
    let asked = PostEvent::Drafted { author: anne(), content: content(), slug: Some(slug("mine")) };
    given([asked]).when(publish(ANNE)).then_expect_events(vec![published("mine")]);
}

#[test]
fn publishing_again_changes_nothing() {
    given([drafted(), published("on-writing")]).when(publish(ANNE)).then_expect_events(vec![]);
}

#[test]
fn a_post_published_anew_keeps_its_slug() {
    given([drafted(), published("on-writing"), unpublished(), revised_title("On reading")])
        .when(publish(ANNE))
        .then_expect_events(vec![published("on-writing")]);
}

#[test]
fn to_others_a_draft_does_not_exist() {
    for command in [publish(BOB), revise(BOB, "x"), unpublish(BOB), delete(BOB)] {
        given([drafted()]).when(command.clone()).then_expect_error(PostError::NotFound);
        given([drafted(), deleted()]).when(command.clone()).then_expect_error(PostError::NotFound);
        given([drafted(), published("on-writing"), unpublished()])
            .when(command)
            .then_expect_error(PostError::NotFound);
    }
}

#[test]
fn to_others_a_post_that_was_published_is_not_theirs() {
    for command in [publish(BOB), revise(BOB, "x"), unpublish(BOB), delete(BOB)] {
        given([drafted(), published("on-writing")])
            .when(command.clone())
            .then_expect_error(PostError::NotTheAuthor);
        given([drafted(), published("on-writing"), unpublished(), deleted()])
            .when(command)
            .then_expect_error(PostError::NotTheAuthor);
    }
}

#[test]
fn what_was_never_written_cannot_be_found() {
    for command in [publish(ANNE), revise(ANNE, "x"), unpublish(ANNE), delete(ANNE)] {
        given([]).when(command).then_expect_error(PostError::NotFound);
    }
}

#[test]
fn a_revision_records_only_what_differs() {
    let changes = PostChanges {
        title: Some(title("On writing")),
        content: Some(body("Begin again.")),
        summary: Some(Summary::default()),
        tags: Some(vec![]),
    };
    let only_content =
        PostChanges { content: Some(body("Begin again.")), ..PostChanges::default() };
    given([drafted()])
        .when(PostCommand::Revise { by: id(ANNE), changes, slug: None })
        .then_expect_events(vec![PostEvent::Revised { changes: only_content, slug: None }]);
}

#[test]
fn a_revision_that_changes_nothing_records_nothing() {
    given([drafted()]).when(revise(ANNE, "On writing")).then_expect_events(vec![]);
}

#[test]
fn a_revision_is_compared_with_the_last_one() {
    given([drafted(), revised_title("On reading")])
        .when(revise(ANNE, "On writing"))
        .then_expect_events(vec![revised_title("On writing")]);
}

#[test]
fn another_spelling_of_a_tag_is_a_change() {
    let spelled = |name| PostChanges { tags: Some(vec![tag(name)]), ..PostChanges::default() };
    let revised = |name| PostEvent::Revised { changes: spelled(name), slug: None };
    let command = |name| PostCommand::Revise { by: id(ANNE), changes: spelled(name), slug: None };
    given([drafted(), revised("rust")])
        .when(command("Rust"))
        .then_expect_events(vec![revised("Rust")]);
    given([drafted(), revised("Rust")]).when(command("Rust")).then_expect_events(vec![]);
}

#[test]
fn tags_are_compared_one_by_one() {
    let tags = |names: &[&str]| names.iter().map(|name| tag(name)).collect::<Vec<_>>();
    let tagged = |names| PostChanges { tags: Some(tags(names)), ..PostChanges::default() };
    given([drafted(), PostEvent::Revised { changes: tagged(&["a", "b"]), slug: None }])
        .when(PostCommand::Revise { by: id(ANNE), changes: tagged(&["ab"]), slug: None })
        .then_expect_events(vec![PostEvent::Revised { changes: tagged(&["ab"]), slug: None }]);
}

#[test]
fn a_published_post_takes_a_new_slug_only_when_asked() {
    given([drafted(), published("on-writing")])
        .when(revise(ANNE, "On reading"))
        .then_expect_events(vec![revised_title("On reading")]);
    let ask = |text| PostCommand::Revise {
        by: id(ANNE),
        changes: PostChanges::default(),
        slug: Some(slug(text)),
    };
    given([drafted(), published("on-writing")]).when(ask("mine")).then_expect_events(vec![
        PostEvent::Revised { changes: PostChanges::default(), slug: Some(slug("mine")) },
    ]);
    given([drafted(), published("on-writing")]).when(ask("on-writing")).then_expect_events(vec![]);
}

#[test]
fn unpublishing_makes_a_draft_and_again_changes_nothing() {
    given([drafted(), published("on-writing")])
        .when(unpublish(ANNE))
        .then_expect_events(vec![unpublished()]);
    given([drafted()]).when(unpublish(ANNE)).then_expect_events(vec![]);
}

#[test]
fn a_draft_and_a_published_post_can_be_deleted() {
    given([drafted()]).when(delete(ANNE)).then_expect_events(vec![deleted()]);
    given([drafted(), published("on-writing")])
        .when(delete(ANNE))
        .then_expect_events(vec![deleted()]);
}

#[test]
fn deleting_again_changes_nothing() {
    given([drafted(), deleted()]).when(delete(ANNE)).then_expect_events(vec![]);
}

#[test]
fn a_deleted_post_takes_no_other_command() {
    for command in [publish(ANNE), revise(ANNE, "x"), unpublish(ANNE)] {
        given([drafted(), deleted()]).when(command).then_expect_error(PostError::Deleted);
    }
    given([drafted(), deleted()]).when(draft(ANNE)).then_expect_error(PostError::AlreadyExists);
}

proptest! {
    #[test]
    fn a_command_repeated_at_once_changes_nothing(commands in prop::collection::vec(any_command(), 0..12)) {
        let mut post = Post::default();
        for command in commands {
            for event in post.decide(command.clone()).unwrap_or_default() {
                post.apply_event(event);
            }
            let again = post.decide(command).unwrap_or_default();
            prop_assert!(again.is_empty(), "{again:?}");
            prop_assert!(post.status() != Status::Published || post.slug().is_some());
        }
    }
}

proptest! {
    #[test]
    fn folding_the_events_gives_the_state_that_deciding_left(
        commands in prop::collection::vec(any_command(), 0..20),
    ) {
        let (mut decided, mut history) = (Post::default(), vec![]);
        for command in commands {
            for event in decided.decide(command).unwrap_or_default() {
                decided.apply_event(event.clone());
                history.push(event);
            }
        }
        let mut folded = Post::default();
        for event in history {
            // As it would come back from the store.
            let stored = serde_json::to_string(&event).unwrap();
            folded.apply_event(serde_json::from_str(&stored).unwrap());
        }
        prop_assert_eq!(folded, decided);
    }

    #[test]
    fn nobody_but_its_author_ever_changes_a_post(
        commands in prop::collection::vec(any_command(), 0..20),
    ) {
        let mut post = Post::default();
        let mut author = None;
        for command in commands {
            let by = match &command {
                PostCommand::Draft { author, .. } => author.id.clone(),
                PostCommand::Publish { by, .. }
                | PostCommand::Revise { by, .. }
                | PostCommand::Unpublish { by }
                | PostCommand::Delete { by } => by.clone(),
            };
            let events = post.decide(command).unwrap_or_default();
            if !events.is_empty() {
                prop_assert_eq!(author.get_or_insert(by.clone()), &by);
            }
            events.into_iter().for_each(|event| post.apply_event(event));
        }
    }
}

impl Post {
    fn apply_event(&mut self, event: PostEvent) {
        cqrs_es::Aggregate::apply(self, event);
    }
}

fn any_command() -> impl Strategy<Value = PostCommand> {
    let who = prop_oneof![Just(ANNE), Just(BOB)];
    (0..6_u8, who, "[a-c]{1,2}").prop_map(|(kind, who, text)| match kind {
        0 => draft(who),
        1 => publish(who),
        2 => revise(who, &text),
        3 => PostCommand::Revise {
            by: id(who),
            changes: PostChanges::default(),
            slug: Some(slug(&text)),
        },
        4 => unpublish(who),
        _ => delete(who),
    })
}

fn given<const N: usize>(events: [PostEvent; N]) -> AggregateTestExecutor<Post> {
    TestFramework::with(()).given(events.into())
}

fn id(name: &str) -> AuthorId {
    name.parse().unwrap()
}

fn anne() -> Author {
    Author { id: id(ANNE), name: None }
}

fn title(text: &str) -> Title {
    text.to_owned().try_into().unwrap()
}

fn body(text: &str) -> Body {
    text.to_owned().try_into().unwrap()
}

fn tag(text: &str) -> Tag {
    text.to_owned().try_into().unwrap()
}

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

fn content() -> PostContent {
    PostContent {
        title: title("On writing"),
        content: body("Begin."),
        summary: Summary::default(),
        tags: vec![],
    }
}

fn draft(by: &str) -> PostCommand {
    PostCommand::Draft { author: Author { id: id(by), name: None }, content: content(), slug: None }
}

fn publish(by: &str) -> PostCommand {
    PostCommand::Publish { by: id(by), post_id: POST, slug: SlugChoice::FromTitle }
}

fn revise(by: &str, to: &str) -> PostCommand {
    let changes = PostChanges { title: Some(title(to)), ..PostChanges::default() };
    PostCommand::Revise { by: id(by), changes, slug: None }
}

fn unpublish(by: &str) -> PostCommand {
    PostCommand::Unpublish { by: id(by) }
}

fn delete(by: &str) -> PostCommand {
    PostCommand::Delete { by: id(by) }
}

fn drafted() -> PostEvent {
    PostEvent::Drafted { author: anne(), content: content(), slug: None }
}

fn published(text: &str) -> PostEvent {
    PostEvent::Published { slug: slug(text) }
}

fn revised_title(text: &str) -> PostEvent {
    let changes = PostChanges { title: Some(title(text)), ..PostChanges::default() };
    PostEvent::Revised { changes, slug: None }
}

fn unpublished() -> PostEvent {
    PostEvent::Unpublished {}
}

fn deleted() -> PostEvent {
    PostEvent::Deleted {}
}
