//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{error::ApiError, events::Origin};

/// The other end of the socket, put into each request by the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The id of a request, put there by the envelope.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub String);

/// Where the client is, put there by the envelope.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub IpAddr);

/// The other end of the socket; unspecified when there is none.
pub(super) fn peer(parts: &axum::http::Extensions) -> IpAddr {
    parts.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let address =
            parts.extensions.get::<ClientAddress>().map_or_else(|| peer(&parts.extensions), |client| client.0);
        Ok(Self { address, request_id })
    }
}
