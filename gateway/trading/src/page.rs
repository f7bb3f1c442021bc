//! Pages of lists: `limit`, opaque cursors, sorting (contract §5.2).
//!
//! A cursor is Base64 of a JSON object that names the last row, `{"id":"order_..."}`. The rows after it are found by
//! that row's place in the order asked for, so pages neither skip nor repeat rows while new ones arrive.

use crate::answer::{ApiError, Reply, respond};
use crate::query::Query;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Rows in a page when nobody says.
pub(crate) const LIMIT_DEFAULT: usize = 50;
/// Most rows in a page of anything but orders.
pub(crate) const LIMIT_MAX: usize = 100;
/// Most rows in a page of orders.
pub(crate) const LIMIT_MAX_ORDERS: usize = 500;

/// Which page of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// At most this many rows.
    pub(crate) limit: usize,
    /// Rows to pass over, in the old page-number style.
    pub(crate) offset: usize,
    /// Where it starts or ends.
    pub(crate) from: Position,
    /// The member that the list is sorted by.
    pub(crate) order_by: &'static str,
    /// Largest first.
    pub(crate) descending: bool,
}

/// Where a page starts or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// At the list's start.
    Start,
    /// After the row that the cursor names.
    After(Cursor),
    /// Before the row that the cursor names.
    Before(Cursor),
}

/// What a cursor says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Cursor {
    /// The row's public id.
    pub(crate) id: String,
    /// For own trades the side, since a trade with oneself is two rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) side: Option<String>,
}

impl Cursor {
    /// A cursor at the row with this id.
    #[must_use]
    pub(crate) fn at(id: &str) -> Self {
        Self { id: id.into(), side: None }
    }

    /// Its opaque form.
    #[must_use]
    pub(crate) fn encode(&self) -> String {
        STANDARD.encode(serde_json::to_string(self).expect("two strings are JSON"))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        crate::auth::base64_lenient(text)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| ApiError::malformed("the cursor is not one that this venue gave out"))
    }
}

impl Page {
    /// Reads the paging parameters. `sorts` are the members that may be sorted by, the default first.
    pub(crate) fn parse(query: &Query, limit_max: usize, sorts: &[&'static str]) -> Result<Self, ApiError> {
        let number = |name: &str| -> Result<Option<usize>, ApiError> {
            query
                .get(name)
                .map(|text| {
                    text.parse().map_err(|_| ApiError::malformed(format!("{name} is not a whole number")))
                })
                .transpose()
        };
        let page_size = number("page_size")?.map(|size| size.clamp(1, limit_max));
        let limit = match number("limit")? {
            Some(limit) if limit == 0 || limit > limit_max => {
                let text = format!("limit must be between 1 and {limit_max}");
                return Err(ApiError::unprocessable("VALIDATION_ERROR", text));
            }
            Some(limit) => limit,
            None => page_size.unwrap_or(LIMIT_DEFAULT),
        };
        let offset = match (number("offset")?, number("page")?) {
            (Some(offset), _) => offset,
            (None, Some(page)) => page.saturating_sub(1).saturating_mul(limit),
            (None, None) => 0,
        };
        let from = match (query.get("next"), query.get("prev")) {
            (Some(_), Some(_)) => return Err(ApiError::malformed("next and prev exclude each other")),
            (Some(text), None) => Position::After(Cursor::decode(text)?),
            (None, Some(text)) => Position::Before(Cursor::decode(text)?),
            (None, None) => Position::Start,
        };
        let order_by = match query.get("order_by") {
            None => sorts[0],
            Some(name) => sorts.iter().find(|sort| **sort == name).copied().ok_or_else(|| {
                ApiError::unprocessable(
                    "VALIDATION_ERROR",
                    format!("order_by must be one of {}", sorts.join(", ")),
                )
            })?,
        };
        let direction = query.get("order_direction").or_else(|| query.get("order_directions"));
        let descending = match direction {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => {
                return Err(ApiError::unprocessable(
                    "VALIDATION_ERROR",
                    "order_direction must be asc or desc",
                ));
            }
        };
        Ok(Self { limit, offset: offset.min(i64::MAX as usize), from, order_by, descending })
    }

    /// A page of a list that is held in memory: each row's own member `order_by` sorts it, `id` names it.
    pub(crate) fn of_rows(&self, mut rows: Vec<Value>, id: &str) -> Reply {
        rows.sort_by(|a, b| {
            let order = compare(&a[self.order_by], &b[self.order_by]);
            if self.descending { order.reverse() } else { order }
        });
        let find = |cursor: &Cursor| {
            rows.iter()
                .position(|row| row[id] == cursor.id.as_str())
                .ok_or_else(|| ApiError::malformed("the cursor names a row that is no longer there"))
        };
        let (start, end) = match &self.from {
            Position::Start => {
                let start = self.offset.min(rows.len());
                (start, start.saturating_add(self.limit).min(rows.len()))
            }
            Position::After(cursor) => {
                let start = find(cursor)? + 1;
                (start, (start + self.limit).min(rows.len()))
            }
            Position::Before(cursor) => {
                let end = find(cursor)?;
                (end.saturating_sub(self.limit), end)
            }
        };
        let total = rows.len();
        rows.truncate(end);
        let rows: Vec<Value> = rows.drain(start..).collect();
        let cursor = |row: Option<&Value>| row.and_then(|row| row[id].as_str()).map(Cursor::at);
        let (first, last) = (cursor(rows.first()), cursor(rows.last()));
        Ok(self.reply(rows, start > 0, end < total, first, last))
    }

    /// The answer with its paging block.
    #[must_use]
    pub(crate) fn reply(
        &self,
        rows: Vec<Value>,
        more_before: bool,
        more_after: bool,
        first: Option<Cursor>,
        last: Option<Cursor>,
    ) -> axum::response::Response {
        let backwards = matches!(self.from, Position::Before(_));
        let next = last.filter(|_| more_after).map(|cursor| cursor.encode());
        let prev = first.filter(|_| more_before).map(|cursor| cursor.encode());
        let body = json!({
            "data": rows,
            "paging": {
                "has_more": if backwards { more_before } else { more_after },
                "next_cursor": next,
                "prev_cursor": prev,
            },
        });
        respond(StatusCode::OK, &body)
    }
}

/// Numbers by value, texts by their bytes (ISO times and ids among them), absent first.
fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a.total_cmp(&b)
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => a.is_null().cmp(&b.is_null()).reverse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Result<Page, u16> {
        let query = Query::parse(text).expect("well-formed");
        Page::parse(&query, LIMIT_MAX, &["created_at", "price"]).map_err(|error| error.status.as_u16())
    }

    async fn body(reply: Reply) -> Value {
        let response = reply.expect("a page");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a small body");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn limits_orders_and_cursors_are_checked() {
        let table = [
            ("limit=0", 422),
            ("limit=101", 422),
            ("limit=-1", 400),
            ("limit=ten", 400),
            ("next=!!!", 400),
            ("next=e30=", 400),
            ("next=eyJpZCI6IngifQ==&prev=eyJpZCI6IngifQ==", 400),
            ("order_by=password", 422),
            ("order_direction=up", 422),
        ];
        for (text, status) in table {
            assert_eq!(page(text), Err(status), "{text}");
        }
        assert_eq!(page("page_size=200").map(|page| page.limit), Ok(100));
        assert_eq!(page("page=3&page_size=20").map(|page| page.offset), Ok(40));
    }

    #[test]
    fn a_cursor_is_base64_json_naming_the_row() {
        assert_eq!(Cursor::at("order_1").encode(), STANDARD.encode(r#"{"id":"order_1"}"#));
    }

    #[tokio::test]
    async fn walking_forth_and_back_visits_every_row_once() {
        let rows: Vec<Value> =
            (0..7).map(|n| json!({"id": format!("r{n}"), "created_at": n, "price": 7 - n})).collect();
        let mut seen = Vec::new();
        let mut query = "limit=3".to_owned();
        let mut last;
        loop {
            last = body(page(&query).expect("a page").of_rows(rows.clone(), "id")).await;
            seen.extend(last["data"].as_array().expect("rows").iter().map(|row| row["created_at"].clone()));
            if last["paging"]["has_more"] == false {
                break;
            }
            query = format!("limit=3&next={}", last["paging"]["next_cursor"].as_str().expect("a cursor"));
        }
        assert_eq!(seen, (0..7).map(Value::from).collect::<Vec<_>>());
        assert_eq!(last["paging"]["next_cursor"], Value::Null);
        let query = format!("limit=3&prev={}", last["paging"]["prev_cursor"].as_str().expect("a cursor"));
        let before = body(page(&query).expect("a page").of_rows(rows.clone(), "id")).await;
        assert_eq!(before["data"].as_array().map(Vec::len), Some(3));
        assert_eq!(before["data"][2]["created_at"], 5);
        let sorted = body(page("order_by=price&limit=1").expect("a page").of_rows(rows, "id")).await;
        assert_eq!(sorted["data"][0]["price"], 1);
    }
}
