//! How a process is asked to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when somebody presses Ctrl-C or the process is told to terminate.
pub async fn shutdown_signal() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Without a handler of ours the signal still ends the process, only less gently.
        Err(error) => {
            tracing::error!(%error, "Signals cannot be received: {error}");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => tracing::info!("Interrupted; stopping"),
        () = wait(SignalKind::terminate()) => tracing::info!("Told to terminate; stopping"),
    }
}
