//! Certificates that are made here: an authority for each, so that its key need not be kept.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Clocks of a cluster differ.
const BEFORE: Duration = Duration::from_hours(1);

/// A certificate, its key, and whom to trust for it. PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The authority that signed it first; behind it the one before, as long as that one's certificate may be in use.
    pub authorities: String,
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

/// Why a certificate can not be made or used.
#[derive(Debug, thiserror::Error)]
#[error("certificate: {0}")]
pub struct Unusable(String);

fn unusable(error: impl std::fmt::Display) -> Unusable {
    Unusable(error.to_string())
}

impl Pair {
    /// Makes one for these names. The authority of the one before is still trusted, if that one is still good.
    pub fn make(
        names: &[String],
        now: SystemTime,
        lifetime: Duration,
        before: Option<&Pair>,
    ) -> Result<Pair, Unusable> {
        let bounds = |params: &mut CertificateParams| {
            params.not_before = (now - BEFORE).into();
            params.not_after = (now + lifetime).into();
        };
        let authority_key = KeyPair::generate().map_err(unusable)?;
        let mut authority = CertificateParams::new(Vec::new()).map_err(unusable)?;
        bounds(&mut authority);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Its own name each time: a client finds the right one of two by it.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        authority.distinguished_name.push(DnType::CommonName, format!("lameduck webhook {since}"));
        let signed = authority.self_signed(&authority_key).map_err(unusable)?;
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().map_err(unusable)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(unusable)?;
        bounds(&mut params);
        params.distinguished_name.push(DnType::CommonName, "lameduck webhook");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &issuer).map_err(unusable)?;

        let kept = before.filter(|pair| pair.holds(names, now)).and_then(Pair::first_authority);
        let authorities = signed.pem() + &kept.unwrap_or_default();
        Ok(Pair { authorities, certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn first_authority(&self) -> Option<String> {
        const END: &str = "-----END CERTIFICATE-----";
        let end = self.authorities.find(END)? + END.len();
        Some(format!("{}\n", &self.authorities[..end]))
    }

    /// Whether a client that trusts its authorities takes it at that time, for every one of these names.
    pub fn holds(&self, names: &[String], at: SystemTime) -> bool {
        self.verify(names, at).is_some()
    }

    fn verify(&self, names: &[String], at: SystemTime) -> Option<()> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.authorities.as_bytes()) {
            roots.add(authority.ok()?).ok()?;
        }
        let chain = self.chain().ok()?;
        let (first, rest) = chain.split_first()?;
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
        let verifier = builder.build().ok()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).ok()?);
        for name in names {
            let name = ServerName::try_from(name.as_str()).ok()?;
            verifier.verify_server_cert(first, rest, &name, &[], at).ok()?;
        }
        self.loaded().ok().map(|_| ())
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<_, _>>().map_err(unusable)
    }

    /// For a TLS server. The key is the certificate's.
    pub fn loaded(&self) -> Result<CertifiedKey, Unusable> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(unusable)?;
        CertifiedKey::from_der(self.chain()?, key, &default_provider()).map_err(unusable)
    }

    /// Whether it is time for another: in the last third of its life, or if it is good for nothing.
    pub fn is_due(&self, names: &[String], now: SystemTime, lifetime: Duration) -> bool {
        !self.holds(names, now) || !self.holds(names, now + lifetime / 3)
    }
}

/// The certificate that is served, which can be another one at any time.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// Serves this one from now on.
    pub fn set(&self, pair: &Pair) -> Result<(), Unusable> {
        let loaded = Arc::new(pair.loaded()?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
        Ok(())
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn names() -> Vec<String> {
        ["lameduck-webhook.lameduck.svc", "127.0.0.1"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_certificate_holds_for_its_names_and_its_time() {
        let now = crate::clock::now();
        let pair = Pair::make(&names(), now, 90 * DAY, None).unwrap();
        let check = |days: u32, due: bool, holds: bool| {
            let at = now + days * DAY;
            assert_eq!((pair.is_due(&names(), at, 90 * DAY), pair.holds(&names(), at)), (due, holds), "day {days}");
        };
        check(0, false, true);
        check(59, false, true);
        check(61, true, true);
        check(91, true, false);
        assert!(!pair.holds(&["other.svc".to_owned()], now));
        assert!(!pair.holds(&names(), now - DAY));
    }

    #[test]
    fn after_a_rotation_the_one_before_is_still_trusted_and_no_third() {
        let now = crate::clock::now();
        let first = Pair::make(&names(), now, 90 * DAY, None).unwrap();
        let second = Pair::make(&names(), now + DAY, 90 * DAY, Some(&first)).unwrap();
        let third = Pair::make(&names(), now + 2 * DAY, 90 * DAY, Some(&second)).unwrap();
        let trusts = |authorities: &Pair, pair: &Pair| {
            let as_seen = Pair { authorities: authorities.authorities.clone(), ..pair.clone() };
            as_seen.holds(&names(), now + 2 * DAY)
        };
        assert!(trusts(&second, &first) && trusts(&second, &second));
        assert!(trusts(&third, &second) && trusts(&third, &third));
        assert!(!trusts(&third, &first) && !trusts(&first, &second));
    }

    #[test]
    fn an_expired_one_is_not_trusted_any_longer() {
        let now = crate::clock::now();
        let old = Pair::make(&names(), now - 100 * DAY, 90 * DAY, None).unwrap();
        let new = Pair::make(&names(), now, 90 * DAY, Some(&old)).unwrap();
        assert!(old.is_due(&names(), now, 90 * DAY));
        assert_eq!(new.authorities.matches("BEGIN CERTIFICATE").count(), 1);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let now = crate::clock::now();
        let (one, other) = (Pair::make(&names(), now, DAY, None), Pair::make(&names(), now, DAY, None));
        let mixed = Pair { key: other.unwrap().key, ..one.unwrap() };
        assert!(mixed.loaded().is_err() && mixed.is_due(&names(), now, DAY));
        let nothing = Pair { authorities: String::new(), certificate: String::new(), key: String::new() };
        assert!(nothing.loaded().is_err() && nothing.is_due(&names(), now, DAY));
    }
}
