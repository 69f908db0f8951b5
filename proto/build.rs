//! Compiles `cri.proto`; needs `protoc` (Debian: `protobuf-compiler`).

fn main() -> std::io::Result<()> {
    // Build scripts see a feature as an environment variable.
    let server = std::env::var_os("CARGO_FEATURE_SERVER").is_some();
    tonic_prost_build::configure()
        .build_server(server)
        // Credentials must not reach a log through `{:?}`; lib.rs writes this message's Debug by hand.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_protos(&["cri.proto"], &["."])
}
