//! Rendering off the event loop: on threads that may block, one for each core at most.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use futures::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::to_html;

/// Texts that are short together cost one change of thread.
const BYTES_TOGETHER: usize = 32 * 1024;

/// Permits to render, shared by the whole process: however many texts wait, the loop keeps its core's share.
static RENDERERS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from)));

/// Renders texts in parallel and returns their HTML in the same order. Fails only while the runtime ends.
pub async fn render_all(texts: impl IntoIterator<Item = String>) -> Result<Vec<String>, JoinError> {
    let batches = in_batches(texts).into_iter().map(render_batch);
    Ok(try_join_all(batches).await?.into_iter().flatten().collect())
}

async fn render_batch(texts: Vec<String>) -> Result<Vec<String>, JoinError> {
    // Nothing closes it.
    let _permit = RENDERERS.acquire().await;
    let render = move || texts.iter().map(|text| to_html(text)).collect();
    tokio::task::spawn_blocking(render).await
}

fn in_batches(texts: impl IntoIterator<Item = String>) -> Vec<Vec<String>> {
    let (mut batches, mut batch, mut bytes) = (vec![], vec![], 0);
    for text in texts {
        bytes += text.len();
        batch.push(text);
        if bytes >= BYTES_TOGETHER {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn texts_of_any_length_come_back_in_their_order() {
        let texts: Vec<String> =
            (0..200).map(|number| format!("{number} ").repeat(1 + number * number)).collect();
        let expected: Vec<String> = texts.iter().map(|text| to_html(text)).collect();
        assert_eq!(render_all(texts).await.unwrap(), expected);
        assert!(render_all([]).await.unwrap().is_empty());
    }
}
