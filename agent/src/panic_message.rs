//! What a panic says, for those who show it.

use std::any::Any;

use tokio::task::JoinError;

/// The message of a panic that was caught.
pub(crate) fn of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it says nothing".to_owned())
}

/// The message of the panic that ended a task; that it was cancelled where it was.
pub(crate) fn of_task(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => of(&*panic),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_message() {
        let caught = |panic: fn()| of(&*std::panic::catch_unwind(panic).unwrap_err());
        assert_eq!(caught(|| panic!("plain")), "plain");
        assert_eq!(caught(|| panic!("with {}", 1)), "with 1");
        assert_eq!(caught(|| std::panic::panic_any(7)), "it says nothing");
    }

    #[tokio::test]
    async fn a_task_is_told_by_its_panic_or_its_cancellation() {
        let panicked = tokio::spawn(async { panic!("a defect") }).await;
        assert_eq!(of_task(panicked.unwrap_err()), "a defect");
        let endless = tokio::spawn(std::future::pending::<()>());
        endless.abort();
        assert!(of_task(endless.await.unwrap_err()).contains("cancelled"));
    }
}
