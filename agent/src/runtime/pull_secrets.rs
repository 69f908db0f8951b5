//! The credentials of one pod's `imagePullSecrets`, read for one pull: Secrets of type `kubernetes.io/dockerconfigjson`
//! and `kubernetes.io/dockercfg`.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use super::registry_auth::RegistryAuth;

/// The keys under which the two types of Secret have their credentials.
const CONFIG_JSON: &str = ".dockerconfigjson";
const CONFIG: &str = ".dockercfg";

/// Credentials that only pulls for one pod may use.
#[derive(Default)]
pub(crate) struct PullSecrets {
    auth: RegistryAuth,
    digest: Sha256,
}

impl fmt::Debug for PullSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PullSecrets")
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl PullSecrets {
    /// Adds those of a Secret, or says why it has none.
    pub(crate) fn add(&mut self, namespace: &str, name: &str, secret: &Secret) -> Result<(), String> {
        let place = format!("secret {namespace}/{name}");
        let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
        let (auth, text) = if let Some(text) = data(CONFIG_JSON) {
            (RegistryAuth::parse(&place, &text.0), text)
        } else if let Some(text) = data(CONFIG) {
            (RegistryAuth::parse_entries(&place, &text.0), text)
        } else {
            return Err(format!("{place} has neither {CONFIG_JSON} nor {CONFIG}"));
        };
        self.digest.update(Sha256::digest(&text.0));
        self.auth.merge(auth);
        Ok(())
    }

    /// What they give.
    pub(crate) fn auth(&self) -> &RegistryAuth {
        &self.auth
    }

    /// The same for the same credentials, and for no others.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::pod::image_reference::ImageReference;

    const SECRET: &str = "open-sesame";

    fn secret(key: &str, text: &str) -> Secret {
        Secret {
            data: Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn both_types_of_secret_are_read_and_the_best_fitting_entry_of_all_comes_first() {
        let login = |user: &str| format!(r#"{{"username":"{user}","password":"{SECRET}"}}"#);
        let newer = format!(r#"{{"auths":{{"quay.io":{}}}}}"#, login("newer"));
        let older = format!(
            r#"{{"quay.io/team":{},"a.io":{}}}"#,
            login("older"),
            login("other")
        );
        let mut secrets = PullSecrets::default();
        let nothing = secrets.digest();
        assert_eq!(secrets.add("shop", "one", &secret(CONFIG_JSON, &newer)), Ok(()));
        assert_eq!(secrets.add("shop", "two", &secret(CONFIG, &older)), Ok(()));
        let image = ImageReference::parse("quay.io/team/app").expect("an image");
        let users: Vec<_> = secrets
            .auth()
            .credentials_for(&image)
            .map(|credential| credential.auth.username.clone())
            .collect();
        assert_eq!(users, ["older", "newer"]);
        assert_ne!(secrets.digest(), nothing);
        assert!(!format!("{secrets:?}").contains(SECRET));
    }

    #[test]
    fn what_holds_no_credentials_is_named_without_what_it_holds() {
        let mut secrets = PullSecrets::default();
        let refused = secrets
            .add("shop", "keys", &secret("password", SECRET))
            .expect_err("no credentials");
        assert_eq!(
            refused,
            "secret shop/keys has neither .dockerconfigjson nor .dockercfg"
        );
        secrets
            .add(
                "shop",
                "torn",
                &secret(CONFIG_JSON, &format!("{{\"auths\": {SECRET}")),
            )
            .expect("it is told at the pull");
        let problems: Vec<_> = secrets.auth().problems.iter().map(ToString::to_string).collect();
        assert!(
            problems.len() == 1 && problems[0].contains("secret shop/torn") && !problems[0].contains(SECRET),
            "{problems:?}"
        );
    }
}
