//! Compiles `cri.proto`; needs `protoc` (Debian: `protobuf-compiler`).

/// What a runtime answers to a verbose question holds these as JSON, with the names of the proto file.
const CONFIGURATIONS: &[&str] = &[
    "PodSandboxConfig",
    "PodSandboxMetadata",
    "DNSConfig",
    "PortMapping",
    "LinuxPodSandboxConfig",
    "LinuxSandboxSecurityContext",
    "NamespaceOption",
    "UserNamespace",
    "IDMapping",
    "SELinuxOption",
    "Int64Value",
    "SecurityProfile",
    "LinuxContainerResources",
    "HugepageLimit",
    "ContainerMetadata",
    "ContainerConfig",
    "ImageSpec",
    "Mount",
    "KeyValue",
    "Device",
    "CDIDevice",
    "LinuxContainerConfig",
    "LinuxContainerSecurityContext",
    "Capability",
];

fn main() -> std::io::Result<()> {
    // Build scripts see a feature as an environment variable.
    let server = std::env::var_os("CARGO_FEATURE_SERVER").is_some();
    let mut builder = tonic_prost_build::configure().build_server(server);
    for message in CONFIGURATIONS {
        builder = builder.message_attribute(
            format!("runtime.v1.{message}"),
            "#[derive(serde::Deserialize)] #[serde(default)]",
        );
    }
    builder
        .field_attribute(
            "runtime.v1.KeyValue.value",
            "#[serde(deserialize_with = \"crate::text_as_bytes\")]",
        )
        .field_attribute(
            "runtime.v1.ContainerConfig.CDI_devices",
            "#[serde(rename = \"CDI_devices\")]",
        )
        .field_attribute(
            "runtime.v1.Mount.uidMappings",
            "#[serde(rename = \"uidMappings\")]",
        )
        .field_attribute(
            "runtime.v1.Mount.gidMappings",
            "#[serde(rename = \"gidMappings\")]",
        )
        // Credentials must not reach a log through `{:?}`; lib.rs writes this message's Debug by hand.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_protos(&["cri.proto"], &["."])
}
