//! Whether a value fits a JSON schema of the few kinds that probes ask for: types, properties, required members, no
//! others, items and their number, enumerations.

use serde_json::Value;

/// True if it does. What the schema says beyond the kinds above is not looked at.
pub(super) fn fits(value: &Value, schema: &Value) -> bool {
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return false;
    }
    match schema["type"].as_str() {
        Some("object") => {
            let Some(members) = value.as_object() else {
                return false;
            };
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let closed = schema["additionalProperties"] == false;
            required.into_iter().all(|name| members.contains_key(name))
                && members.iter().all(|(name, member)| match schema["properties"].get(name) {
                    Some(property) => fits(member, property),
                    None => !closed,
                })
        }
        Some("array") => value.as_array().is_some_and(|items| {
            let count = items.len() as u64;
            schema["minItems"].as_u64().is_none_or(|least| count >= least)
                && items.iter().all(|item| fits(item, &schema["items"]))
        }),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_fits_fits() {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["city", "days"],
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "array", "minItems": 1, "items": {"type": "integer"}}}});
        for (value, fit) in [
            (json!({"city": "Rome", "days": [1]}), true),
            (json!({"city": "Rome", "days": [1, 2], "unit": "C"}), true),
            (json!({"city": "Rome", "days": []}), false),
            (json!({"city": "Rome", "days": [1.5]}), false),
            (json!({"city": "Rome"}), false),
            (json!({"city": 7, "days": [1]}), false),
            (json!({"city": "Rome", "days": [1], "unit": "K"}), false),
            (json!({"city": "Rome", "days": [1], "more": 1}), false),
            (json!("Rome"), false),
        ] {
            assert_eq!(fits(&value, &schema), fit, "{value}");
        }
    }
}
