//! Tests of the names in client certificates.

use super::pki::{Ca, Disk, Leaf};
use crate::tls::Tls;
use crate::tls::client::CertifiedClient;

fn connected(tls: &Tls, leaf: &Leaf) -> Option<CertifiedClient> {
    CertifiedClient::new(tls, tls.client_trust_changes(), Some(&[leaf.cert_der()]))
}

#[test]
fn only_uris_of_the_scheme_are_names() {
    let (server_ca, clients) = (Ca::new("server CA"), Ca::new("clients"));
    let tls = Disk::with(&server_ca.leaf()).and_clients_of(&clients).load();
    let client = connected(&tls, &clients.leaf_with(1, &["relay:bob", "https://carol"], 4000)).unwrap();
    assert!(client.names().contains("bob") && !client.names().contains("https://carol"));
    // The certificate has a DNS name as well.
    assert!(!client.names().contains(super::pki::SERVER_NAME));
    assert!(!format!("{client:?}").contains("bob"));
    for uris in [&[][..], &["https://bob"], &["relay:%"]] {
        assert!(connected(&tls, &clients.leaf_with(1, uris, 4000)).is_none(), "{uris:?}");
    }
    let many: Vec<_> = (0..65).map(|number| format!("relay:{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert!(connected(&tls, &clients.leaf_with(1, &many, 4000)).is_none());
    assert!(CertifiedClient::new(&tls, tls.client_trust_changes(), None).is_none());
    assert!(CertifiedClient::new(&tls, tls.client_trust_changes(), Some(&[])).is_none());
}

/// A request that arrives before its connection ends must not profit from the former trust.
#[test]
fn names_end_with_the_trust_in_the_certificate() {
    let (server_ca, clients, next) = (Ca::new("server CA"), Ca::new("clients"), Ca::new("next"));
    let [mallory, good] = [7, 8].map(|number| clients.leaf_with(number, &["relay:bob"], 4000));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[], 4000));
    let tls = disk.load();
    let [mallory, good] = [mallory, good].map(|leaf| connected(&tls, &leaf).unwrap());
    let open = |client: &CertifiedClient| client.names().contains("bob");
    assert!(open(&mallory) && open(&good));
    disk.put_crl(&clients.crl(&[7], 4000));
    assert!(open(&mallory), "the list is not in use yet");
    tls.reload().unwrap();
    assert!(!open(&mallory) && open(&good));
    disk.put_client_ca(&next);
    disk.put_crl(&next.crl(&[], 4000));
    tls.reload().unwrap();
    assert!(!open(&mallory) && !open(&good));
}

#[test]
fn names_end_with_the_certificate() {
    let (server_ca, clients) = (Ca::new("server CA"), Ca::new("clients"));
    let tls = Disk::with(&server_ca.leaf()).and_clients_of(&clients).load();
    let expired = connected(&tls, &clients.leaf_with(1, &["relay:bob"], 2002)).unwrap();
    assert!(expired.names().is_empty());
}
