//! CRI v1 (`runtime.v1`), as far as debuglet speaks it: a tonic client, and, with the feature `server`,
//! the server side for tests.

/// A value that is `bytes` here and, in the JSON of a runtime, a text.
fn text_as_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    <String as serde::Deserialize>::deserialize(deserializer).map(String::into_bytes)
}

/// The messages and services of package `runtime.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");

    impl std::fmt::Debug for AuthConfig {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter
                .debug_struct("AuthConfig")
                .field("server_address", &self.server_address)
                .finish_non_exhaustive()
        }
    }
}
