//! Who asks: a name and groups, from a client certificate, from the process at the other end of a Unix socket, or from the
//! API server whose token it brings.
//!
//! Whoever is let in by this node may do everything: whoever has a shell in a pod's namespaces has the pod, so finer
//! rights would only look like rights. Whom the cluster lets in may do what the cluster says ([`super::access`]).

use std::borrow::Cow;
use std::sync::Arc;

use nix::unistd::{Gid, Uid};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::kubernetes::cluster_users::User;
use crate::pod::asked_by::{AskedBy, WayIn};
use crate::pod::visibility::Audience;

/// root, by whichever way it comes; the subject's common name in its certificate.
pub(crate) const ROOT_USER: &str = "debuglet:root";
/// The group of root's certificate: Kubernetes' own name for those who may do everything.
pub(crate) const ROOT_GROUP: &str = "system:masters";
/// What goes before the number of a user who is let in as a member of the configured group.
const USER_PREFIX: &str = "debuglet:uid:";
/// The group that Kubernetes adds to everybody whom it knows.
const AUTHENTICATED: &str = "system:authenticated";

/// Who asks; in the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user's name.
    pub(crate) user: Cow<'static, str>,
    /// The groups, in order.
    pub(crate) groups: Vec<String>,
    /// Whom the API server of the node's cluster let in, whose rights are those that it says; none for everybody else,
    /// who may do everything.
    pub(crate) of_cluster: Option<Arc<User>>,
    way_in: WayIn,
}

impl Identity {
    fn new(user: impl Into<Cow<'static, str>>, mut groups: Vec<String>, way_in: WayIn) -> Identity {
        groups.push(AUTHENTICATED.to_owned());
        Identity {
            user: user.into(),
            groups,
            of_cluster: None,
            way_in,
        }
    }

    /// A user of the cluster.
    pub(crate) fn of_user(user: Arc<User>) -> Identity {
        let mut groups = user.groups.clone();
        groups.retain(|group| group != AUTHENTICATED);
        Identity {
            of_cluster: Some(Arc::clone(&user)),
            ..Identity::new(user.name.clone(), groups, WayIn::Cluster)
        }
    }

    /// root of this node, on the socket.
    pub(crate) fn root() -> Identity {
        Identity::new(ROOT_USER, vec![ROOT_GROUP.to_owned()], WayIn::Socket)
    }

    /// What it sees of what is served.
    pub(crate) fn audience(&self) -> Audience {
        match self.of_cluster {
            Some(_) => Audience::Cluster,
            None => Audience::Node,
        }
    }

    /// How it is told in records, events and the log.
    pub(crate) fn asked_by(&self) -> AskedBy {
        AskedBy::new(&self.user, self.way_in)
    }

    /// Who a process on a Unix socket is: root, or, where the configuration names a group, a user who could open
    /// the socket. The kernel opens it to none but root and the group's members, supplementary ones included: its
    /// mode is 0660 from the moment it has its name.
    pub(crate) fn of_process(uid: Uid, group: Option<Gid>) -> Option<Identity> {
        if uid.is_root() {
            Some(Identity::root())
        } else {
            group.map(|_| Identity::new(format!("{USER_PREFIX}{uid}"), Vec::new(), WayIn::Socket))
        }
    }

    /// Who holds a client certificate, which was verified before: its common name and its organizations, as
    /// Kubernetes reads them. Nobody where it has no name.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Identity> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = common_name(subject).filter(|name| !name.is_empty())?;
        let groups = subject.iter_organization();
        let groups = groups.filter_map(|group| group.as_str().ok().map(str::to_owned));
        Some(Identity::new(
            user.to_owned(),
            groups.collect(),
            WayIn::Certificate,
        ))
    }
}

/// The common name of a certificate's subject.
pub(crate) fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name().next()?.as_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_let_in_as_root_or_as_a_user_of_the_configured_group() {
        let (root, other, group) = (Uid::from_raw(0), Uid::from_raw(1000), Some(Gid::from_raw(7)));
        let name = |identity: Option<Identity>| identity.map(|identity| identity.user.into_owned());
        for (uid, group, expected) in [
            (root, None, Some("debuglet:root")),
            (root, group, Some("debuglet:root")),
            (other, group, Some("debuglet:uid:1000")),
            (other, None, None),
        ] {
            assert_eq!(
                name(Identity::of_process(uid, group)).as_deref(),
                expected,
                "{uid} {group:?}"
            );
        }
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        assert_eq!(
            Identity::of_certificate(&CertificateDer::from(vec![1, 2, 3])),
            None
        );
    }
}
