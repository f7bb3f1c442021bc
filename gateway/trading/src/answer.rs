//! What goes back to a client: `{"data": ...}`, or an error in both published shapes (contract §5.12).
//!
//! `errors.detail` / `errors.message` is the current envelope, `error.code` / `error.message` the older one that clients
//! still parse; every error carries both.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use grid_engine::Reject;
use serde_json::{Value, json};

/// An ordinary "no" to a client, or a failure of the world behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// `errors.detail`: what programs and people branch on.
    pub(crate) detail: String,
    /// `error.code`, in the older upper-case vocabulary.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after_s: Option<u64>,
}

/// What every handler returns.
pub(crate) type Reply = Result<Response, ApiError>;

impl ApiError {
    /// An error whose detail is the code in lower case.
    #[must_use]
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, detail: code.to_ascii_lowercase(), code, message: message.into(), retry_after_s: None }
    }

    fn detailed(mut self, detail: &str) -> Self {
        self.detail = detail.into();
        self
    }

    /// 400: the body or a parameter can't be read as what it should be.
    #[must_use]
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message)
    }

    /// 401 with the given detail.
    #[must_use]
    pub(crate) fn unauthorized(code: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail).detailed(detail)
    }

    /// 404 in the contract's words.
    #[must_use]
    pub(crate) fn not_found(code: &'static str) -> Self {
        let text = "Not found - The requested resource does not exist";
        Self::new(StatusCode::NOT_FOUND, code, text).detailed(text)
    }

    /// 422: well-formed, but it can't be.
    #[must_use]
    pub(crate) fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 403.
    #[must_use]
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 409.
    #[must_use]
    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 503: try again shortly.
    #[must_use]
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", message);
        error.retry_after_s = Some(1);
        error
    }

    /// 500: our fault; the cause goes to the log, not to the client.
    #[must_use]
    pub(crate) fn fault(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside the trading tier");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "internal error")
    }

    /// The answer to a command that the engine refused.
    #[must_use]
    pub(crate) fn rejected(reject: Reject) -> Self {
        let text = reject.to_string();
        match reject {
            Reject::AutoModeTradingRestricted => {
                Self::forbidden("AUTO_MODE_TRADING_RESTRICTED", "Switch to Advanced mode to trade.")
            }
            Reject::NotPermitted => Self::forbidden("FORBIDDEN", "this account may not do that"),
            Reject::NotASupplier => Self::forbidden("NOT_A_SUPPLIER", "only suppliers may do that"),
            Reject::UnknownAccount => Self::not_found("ACCOUNT_NOT_FOUND"),
            Reject::UnknownKey => Self::not_found("KEY_NOT_FOUND"),
            Reject::UnknownInstrument => Self::not_found("INSTRUMENT_NOT_FOUND"),
            Reject::UnknownOrder => Self::not_found("ORDER_NOT_FOUND"),
            Reject::UnknownReservation => Self::not_found("RESERVATION_NOT_FOUND"),
            Reject::InstrumentNotLive => Self::unprocessable("MARKET_CLOSED", text),
            Reject::InvalidQuantity => Self::unprocessable("INVALID_QUANTITY", text),
            Reject::InvalidPrice => Self::unprocessable("INVALID_PRICE", text),
            Reject::DuplicateLabel => Self::unprocessable("DUPLICATE_CLIENT_ORDER_ID", text),
            Reject::DuplicateKey => Self::conflict("DUPLICATE_KEY", text),
            Reject::WouldTrade => Self::unprocessable("POST_ONLY_WOULD_TRADE", text),
            Reject::InsufficientFunds | Reject::InsufficientUnits | Reject::InsufficientTokens => {
                Self::new(StatusCode::BAD_REQUEST, "INSUFFICIENT_BALANCE", text)
            }
            Reject::PaymentDeclined | Reject::Replenishing => {
                Self::new(StatusCode::BAD_REQUEST, "INSUFFICIENT_BALANCE", text)
            }
            Reject::FreeTierSpent | Reject::TooManyAtOnce => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", text)
            }
            Reject::AlreadyCredited => Self::conflict("ALREADY_CREDITED", text),
            Reject::UnknownReload => Self::not_found("RELOAD_NOT_FOUND"),
            Reject::BeyondCapacity => Self::unprocessable("BEYOND_CAPACITY", text),
            Reject::BeyondCollateral => Self::unprocessable("BEYOND_COLLATERAL", text),
            Reject::Suspended => Self::unprocessable("SUSPENDED", text),
            Reject::BadSignature => Self::unprocessable("BAD_SIGNATURE", text),
            Reject::TooManyOrders | Reject::LimitReached => Self::unprocessable("LIMIT_REACHED", text),
            Reject::UnknownSession => Self::unavailable("the venue's session is being re-established"),
            _ => Self::unprocessable("INVALID_ORDER", text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "errors": { "detail": self.detail, "message": self.message },
            "error": { "code": self.code, "message": self.message, "details": {} },
        });
        let mut response = respond(self.status, &body);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE || self.status == StatusCode::REQUEST_TIMEOUT {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A JSON answer.
#[must_use]
pub(crate) fn respond(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(axum::body::Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-api-version"), HeaderValue::from_static("v1"));
    response
}

/// 200 with the value under `data`.
pub(crate) fn data(value: impl Into<Value>) -> Reply {
    data_as(StatusCode::OK, value)
}

/// The value under `data`, with this status.
pub(crate) fn data_as(status: StatusCode, value: impl Into<Value>) -> Reply {
    let mut body = serde_json::Map::with_capacity(1);
    body.insert("data".into(), value.into());
    Ok(respond(status, &Value::Object(body)))
}

/// 204 without a body.
pub(crate) fn nothing() -> Reply {
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_carries_both_published_envelopes() {
        let response = ApiError::rejected(Reject::AutoModeTradingRestricted).into_response();
        assert_eq!(response.status(), 403);
        let bytes = axum::body::to_bytes(response.into_body(), 4_096).await.expect("a small body");
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            concat!(
                r#"{"errors":{"detail":"auto_mode_trading_restricted","message":"Switch to Advanced mode to trade."},"#,
                r#""error":{"code":"AUTO_MODE_TRADING_RESTRICTED","message":"Switch to Advanced mode to trade.","details":{}}}"#
            )
        );
    }

    #[test]
    fn engine_rejects_map_to_the_statuses_that_clients_branch_on() {
        let table = [
            (Reject::AutoModeTradingRestricted, 403, "AUTO_MODE_TRADING_RESTRICTED"),
            (Reject::NotPermitted, 403, "FORBIDDEN"),
            (Reject::UnknownInstrument, 404, "INSTRUMENT_NOT_FOUND"),
            (Reject::UnknownOrder, 404, "ORDER_NOT_FOUND"),
            (Reject::InvalidPrice, 422, "INVALID_PRICE"),
            (Reject::InvalidQuantity, 422, "INVALID_QUANTITY"),
            (Reject::OutOfRange, 422, "INVALID_ORDER"),
            (Reject::DuplicateLabel, 422, "DUPLICATE_CLIENT_ORDER_ID"),
            (Reject::InstrumentNotLive, 422, "MARKET_CLOSED"),
            (Reject::InsufficientFunds, 400, "INSUFFICIENT_BALANCE"),
            (Reject::InsufficientUnits, 400, "INSUFFICIENT_BALANCE"),
        ];
        for (reject, status, code) in table {
            let error = ApiError::rejected(reject);
            assert_eq!((error.status.as_u16(), error.code), (status, code), "{reject:?}");
        }
    }
}
