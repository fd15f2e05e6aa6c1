//! The weekly hours in which tasks are taken (`spec.schedule`). Pure: the time is an argument.
//!
//! Hours are those of the clock on the wall of their time zone: where a clock is put back, an hour may come twice.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use super::admit::Waiting;
use crate::crd::{Day, Hours};

/// What is said between the hours; a schedule that cannot be read is something else.
const OUTSIDE: &str = "OutsideHours";

/// Whether nothing is to start now by the binding's own wish.
pub(super) fn is_closed(suspended: bool, schedule: &[Hours], now: Timestamp) -> bool {
    suspended || open(schedule, now).is_err_and(|waiting| waiting.reason == OUTSIDE)
}

/// Why nothing is taken now by the binding's own wish, or by a mistake in it.
pub(super) fn hold(suspended: bool, schedule: &[Hours], now: Timestamp) -> Option<Waiting> {
    if suspended {
        return Some(Waiting::new(
            "Suspended",
            "the binding is suspended (spec.suspend)",
        ));
    }
    open(schedule, now).err()
}

/// Whether tasks are taken now; else when they will be.
pub(super) fn open(schedule: &[Hours], now: Timestamp) -> Result<(), Waiting> {
    if schedule.is_empty() {
        return Ok(());
    }
    let mut next: Option<Zoned> = None;
    for (index, hours) in schedule.iter().enumerate() {
        let window = Window::of(hours).map_err(|message| {
            Waiting::new(
                "ScheduleUnreadable",
                format!("spec.schedule[{index}].{message}; nothing is taken"),
            )
        })?;
        let now = now.to_zoned(window.zone.clone());
        if window.holds(&now) {
            return Ok(());
        }
        let opens = window.opens(&now);
        next = match (next, opens) {
            (Some(known), Some(opens)) if opens < known => Some(opens),
            (known, opens) => known.or(opens),
        };
    }
    let when = next.map_or_else(String::new, |opens| {
        format!(
            ", the next ones begin on {}",
            opens.strftime("%A at %H:%M (%Q)")
        )
    });
    Err(Waiting::new(
        OUTSIDE,
        format!("outside the hours in which tasks are taken (spec.schedule){when}"),
    ))
}

struct Window {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl Window {
    fn of(hours: &Hours) -> Result<Self, String> {
        let time = |field: &str, text: &str| {
            Time::strptime("%H:%M", text)
                .map_err(|_| format!("{field}: {text:?} is no time of day such as 20:00"))
        };
        let zone = match &hours.time_zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                format!("timeZone: {name:?} is no known time zone such as Europe/Berlin")
            })?,
        };
        Ok(Self {
            days: hours.days.iter().map(|day| weekday(*day)).collect(),
            from: time("from", &hours.from)?,
            to: time("to", &hours.to)?,
            zone,
        })
    }

    fn on(&self, day: Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&day)
    }

    fn holds(&self, now: &Zoned) -> bool {
        let (day, time) = (now.weekday(), now.time());
        if self.from < self.to {
            return self.on(day) && self.from <= time && time < self.to;
        }
        // Over midnight: the evening of a day, or the morning after it.
        (self.on(day) && time >= self.from) || (self.on(day.previous()) && time < self.to)
    }

    /// When it begins next.
    fn opens(&self, now: &Zoned) -> Option<Zoned> {
        (0..=7).find_map(|days| {
            let date = now.date().checked_add(days.days()).ok()?;
            let opens = date
                .to_datetime(self.from)
                .to_zoned(self.zone.clone())
                .ok()?;
            (self.on(date.weekday()) && opens > *now).then_some(opens)
        })
    }
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(schedule: &Value, now: &str) -> Result<(), Waiting> {
        let schedule: Vec<Hours> = serde_json::from_value(schedule.clone()).unwrap();
        open(&schedule, now.parse().unwrap())
    }

    #[test]
    fn without_a_schedule_it_is_always_open() {
        assert_eq!(at(&json!([]), "2026-11-22T03:00:00Z"), Ok(()));
    }

    // 2026-11-23 is a Monday.
    #[test]
    fn hours_of_a_day_end_before_their_last_minute_is_over() {
        let schedule = json!([{ "days": ["Mon"], "from": "08:00", "to": "18:00" }]);
        for (now, is_open) in [
            ("2026-11-23T07:59:59Z", false),
            ("2026-11-23T08:00:00Z", true),
            ("2026-11-23T17:59:59Z", true),
            ("2026-11-23T18:00:00Z", false),
            ("2026-11-24T09:00:00Z", false),
        ] {
            assert_eq!(at(&schedule, now).is_ok(), is_open, "{now}");
        }
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let schedule = json!([{ "days": ["Fri"], "from": "20:00", "to": "06:00" }]);
        for (now, is_open) in [
            ("2026-11-27T19:59:00Z", false),
            ("2026-11-27T20:00:00Z", true),
            ("2026-11-28T00:00:00Z", true),
            ("2026-11-28T05:59:00Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-28T20:00:00Z", false),
            ("2026-11-27T03:00:00Z", false),
        ] {
            assert_eq!(at(&schedule, now).is_ok(), is_open, "{now}");
        }
    }

    #[test]
    fn hour_zero_is_an_hour_like_others() {
        let schedule = json!([{ "from": "00:00", "to": "01:00" }]);
        assert!(at(&schedule, "2026-11-23T00:00:00Z").is_ok());
        assert!(at(&schedule, "2026-11-23T01:00:00Z").is_err());
        let whole_day = json!([{ "days": ["Sun"], "from": "00:00", "to": "00:00" }]);
        assert!(at(&whole_day, "2026-11-22T00:00:00Z").is_ok());
        assert!(at(&whole_day, "2026-11-22T23:59:59Z").is_ok());
        assert!(at(&whole_day, "2026-11-23T00:00:00Z").is_err());
    }

    #[test]
    fn the_time_zone_and_its_summer_count() {
        let schedule = json!([{ "from": "08:00", "to": "09:00", "timeZone": "Europe/Berlin" }]);
        assert!(at(&schedule, "2026-11-23T07:30:00Z").is_ok());
        assert!(at(&schedule, "2026-07-01T06:30:00Z").is_ok());
        assert!(at(&schedule, "2026-07-01T07:30:00Z").is_err());
    }

    #[test]
    fn when_it_opens_next_is_told() {
        let schedule = json!([
            { "days": ["Wed"], "from": "08:00", "to": "09:00" },
            { "days": ["Mon"], "from": "20:00", "to": "22:00", "timeZone": "Europe/Berlin" },
        ]);
        let closed = at(&schedule, "2026-11-22T12:00:00Z").unwrap_err();
        assert_eq!(closed.reason, "OutsideHours");
        assert_eq!(
            closed.message,
            "outside the hours in which tasks are taken (spec.schedule), the next ones begin on Monday at 20:00 (Europe/Berlin)"
        );
    }

    #[test]
    fn only_a_wish_closes_a_binding_and_no_mistake() {
        let closed = |suspended, schedule: &Value, now: &str| {
            let schedule: Vec<Hours> = serde_json::from_value(schedule.clone()).unwrap();
            is_closed(suspended, &schedule, now.parse().unwrap())
        };
        let morning = json!([{ "from": "08:00", "to": "09:00" }]);
        let mistaken = json!([{ "from": "08:00", "to": "09:00", "timeZone": "Berlin" }]);
        assert!(closed(true, &json!([]), "2026-11-22T08:30:00Z"));
        assert!(!closed(false, &morning, "2026-11-22T08:30:00Z"));
        assert!(closed(false, &morning, "2026-11-22T09:30:00Z"));
        assert!(!closed(false, &mistaken, "2026-11-22T09:30:00Z"));
    }

    #[test]
    fn an_unknown_time_zone_is_told_with_its_path() {
        let schedule = json!([{ "from": "08:00", "to": "09:00", "timeZone": "Berlin" }]);
        let closed = at(&schedule, "2026-11-22T12:00:00Z").unwrap_err();
        assert_eq!(
            closed.message,
            "spec.schedule[0].timeZone: \"Berlin\" is no known time zone such as Europe/Berlin; nothing is taken"
        );
    }
}
