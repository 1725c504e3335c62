package domain_test

import (
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestCreation_followsTheClock(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		return map[string]domaintest.Scenario{
			"is DRAFT without times": {
				Kind: k, Now: at("08:00"), When: create(k, `{}`),
				Then: list(created(k, "08:00", nil)),
			},
			"is DRAFT while openAt is null, whatever else is set": {
				Kind: k, Now: at("08:00"), When: create(k, `{"openAt": null, "closeAt": "@11:00"}`),
				Then: list(created(k, "08:00", times("", "11:00"))),
			},
			"is DRAFT even when closeAt is past": {
				Kind: k, Now: at("08:00"), When: create(k, `{"closeAt": "@07:00"}`),
				Then: list(created(k, "08:00", times("", "07:00"))),
			},
			"is SCHEDULED when openAt is to come": {
				Kind: k, Now: at("08:00"), When: create(k, `{"openAt": "@09:00"}`),
				Then: list(created(k, "08:00", times("09:00", "")), scheduled("08:00")),
			},
			"is OPEN when openAt is now": {
				Kind: k, Now: at("09:00"), When: create(k, `{"openAt": "@09:00"}`),
				Then: list(created(k, "09:00", times("09:00", "")), scheduled("09:00"), opened("09:00")),
			},
			"is OPEN when openAt is past, and never opened before it was created": {
				Kind: k, Now: at("10:00"), When: create(k, `{"openAt": "@09:00", "closeAt": "@11:00"}`),
				Then: list(created(k, "10:00", times("09:00", "11:00")), scheduled("10:00"), opened("10:00")),
			},
			"runs through when all times are past": {
				Kind: k, Now: at("13:00"), When: create(k, `{"openAt": "@09:00", "closeAt": "@11:00"}`),
				Then: list(created(k, "13:00", times("09:00", "11:00")), scheduled("13:00"), opened("13:00"), closed(k, "13:00"), end(k, "13:00")),
			},
			"does not happen twice": {
				Kind: k, Given: list(created(k, "08:00", nil)), Now: at("08:30"), When: create(k, `{}`),
				Refused: domain.ChangedByAnother,
			},
			"does not happen after a deletion": {
				Kind: k, Given: list(created(k, "08:00", nil), deleted("08:10")), Now: at("08:30"), When: create(k, `{}`),
				Refused: domain.ChangedByAnother,
			},
		}
	})
}

func TestClock(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		made := list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00"))
		afterClose := list(closed(k, "11:00"), end(k, "12:00"))
		if k == domain.KindQueue {
			afterClose = list(closed(k, "11:00"), end(k, "11:00"))
		}
		return map[string]domaintest.Scenario{
			"nothing happens before openAt": {
				Kind: k, Given: made, Now: at("08:59:59.999"),
			},
			"OPEN from openAt on": {
				Kind: k, Given: made, Now: at("09:00"), Then: list(opened("09:00")),
			},
			"OPEN until closeAt": {
				Kind: k, Given: list(made, opened("09:00")), Now: at("10:59:59.999"),
			},
			"a late timer changes no date": {
				Kind: k, Given: made, Now: at("09:07"), Then: list(opened("09:00")),
			},
			"after an outage every step has its own date": {
				Kind: k, Given: made, Now: at("18:00"), Then: list(opened("09:00"), afterClose),
			},
			"what is due comes before a command": {
				Kind: k, Given: made, Now: at("09:07"), When: update(`{"name": "x"}`),
				Then: list(opened("09:00"), updated("09:07", domain.CauseUpdate, `name null "x"`)),
			},
			"what is due stands when the command is refused because of it": {
				Kind: k, Given: made, Now: at("09:07"), When: domain.Delete{},
				Then: list(opened("09:00")), Refused: domain.DeleteActive,
			},
			"what is due stands when the command makes no sense": {
				Kind: k, Given: made, Now: at("09:07"), When: update(`{"nme": "x"}`),
				Then: list(opened("09:00")), Refused: domain.ValidationFailed,
				Details: []domain.Detail{problem("nme", "is not a field of this object")},
			},
			"a clock that runs back counts as the latest time in the stream": {
				Kind: k, Given: made, Now: at("06:00"), When: update(`{"name": "x"}`),
				Then: list(updated("08:00", domain.CauseUpdate, `name null "x"`)),
			},
			"a clock that runs back does nothing by itself": {
				Kind: k, Given: list(made, opened("09:00")), Now: at("06:00"),
			},
		}
	})
}

func TestClock_firstEventIsNotCreation(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		notFound := domain.NotFound(k)
		gone := list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00"), deleted("08:30"))
		s := map[string]domaintest.Scenario{
			"nothing is due before the creation": {Kind: k, Now: at("09:00")},
			"nothing is due after the deletion":  {Kind: k, Given: gone, Now: at("18:00")},
		}
		for name, cmd := range map[string]domain.Command{
			"update":            update(`{"name": "x"}`),
			"update of nothing": update(`{}`),
			"delete":            domain.Delete{},
			"step":              domain.Step{To: domain.StatusOpen},
			"entropy":           supply("x"),
		} {
			s[name+" before the creation"] = domaintest.Scenario{Kind: k, Now: at("09:00"), When: cmd, Refused: notFound}
			s[name+" after the deletion"] = domaintest.Scenario{Kind: k, Given: gone, Now: at("09:00"), When: cmd, Refused: notFound}
		}
		return s
	})
}

func TestClose_defaults(t *testing.T) {
	t.Parallel()
	open := func(k domain.Kind) []domain.Event {
		return list(created(k, "08:00", times("09:00", "")), scheduled("08:00"), opened("09:00"))
	}
	run(t, map[string]domaintest.Scenario{
		"a queue without closeAt stays open": {
			Kind: domain.KindQueue, Given: open(domain.KindQueue), Now: at("23:59"),
		},
		"a draw without closeAt closes at drawAt": {
			Kind: domain.KindDraw, Given: open(domain.KindDraw), Now: at("12:00"),
			Then: list(closed(domain.KindDraw, "12:00"), end(domain.KindDraw, "12:00")),
		},
		"a draw without closeAt is open until drawAt": {
			Kind: domain.KindDraw, Given: open(domain.KindDraw), Now: at("11:59:59.999"),
		},
		"an auction without closeAt closes at settleAt": {
			Kind: domain.KindAuction, Given: open(domain.KindAuction), Now: at("12:00"),
			Then: list(closed(domain.KindAuction, "12:00"), end(domain.KindAuction, "12:00")),
		},
		"an auction without closeAt is open until settleAt": {
			Kind: domain.KindAuction, Given: open(domain.KindAuction), Now: at("11:59:59.999"),
		},
		"a draw is CLOSED until drawAt": {
			Kind: domain.KindDraw, Given: list(open(domain.KindDraw)[:1], scheduled("08:00"), opened("09:00"), updated("10:00", domain.CauseUpdate, `closeAt null "@11:00"`)),
			Now: at("11:59:59.999"), Then: list(closed(domain.KindDraw, "11:00")),
		},
	})
}

func TestSteps_everyStatusByEveryStep(t *testing.T) {
	t.Parallel()
	for _, k := range domain.Kinds() {
		for _, from := range domain.Statuses() {
			given, ok := reach(k, from)
			if !ok {
				continue
			}
			for _, to := range append(domain.Statuses(), "PAUSED") {
				s := domaintest.Scenario{Kind: k, Given: given, When: domain.Step{To: to}, Refused: domain.InvalidTransition}
				s.Now = given[len(given)-1].When().Add(600e9) // ten minutes later nothing new is due
				switch {
				case from == domain.StatusDraft && to == domain.StatusOpen:
					s.Refused, s.Then = "", list(updated("08:10", domain.CauseHand, `openAt null "@08:10"`), scheduled("08:10"), opened("08:10"))
				case from == domain.StatusScheduled && to == domain.StatusOpen:
					s.Refused, s.Then = "", list(updated("08:10", domain.CauseHand, `openAt "@09:00" "@08:10"`), opened("08:10"))
				case from == domain.StatusOpen && to == domain.StatusClosed:
					s.Refused, s.Then = "", list(updated("09:10", domain.CauseHand, `closeAt "@11:00" "@09:10"`), closed(k, "09:10"))
					if k == domain.KindQueue {
						s.Then = append(s.Then, completed("09:10"))
					}
				case from == domain.StatusClosed && k == domain.KindDraw && to == domain.StatusDrawn:
					s.Refused, s.Then = "", list(updated("11:10", domain.CauseHand, `drawAt "@12:00" "@11:10"`), end(k, "11:10"))
				case from == domain.StatusClosed && k == domain.KindAuction && to == domain.StatusSettled:
					s.Refused, s.Then = "", list(updated("11:10", domain.CauseHand, `settleAt "@12:00" "@11:10"`), end(k, "11:10"))
				}
				t.Run(string(k)+" from "+string(from)+" to "+string(to), func(t *testing.T) {
					t.Parallel()
					s.Run(t)
				})
			}
		}
	}
}

func TestSteps_schedule(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		open := list(created(k, "08:00", times("09:00", "")), scheduled("08:00"), opened("09:00"))
		s := map[string]domaintest.Scenario{
			"open is refused when closeAt would be before it": {
				Kind: k, Given: list(created(k, "08:00", times("", "08:20"))), Now: at("08:30"), When: domain.Step{To: domain.StatusOpen},
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("closeAt", "must be after openAt")},
			},
			"open at closeAt is refused": {
				Kind: k, Given: list(created(k, "08:00", times("", "08:20"))), Now: at("08:20"), When: domain.Step{To: domain.StatusOpen},
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("closeAt", "must be after openAt")},
			},
			"open is out of order when the clock opened just now": {
				Kind: k, Given: open[:2], Now: at("09:00"), When: domain.Step{To: domain.StatusOpen},
				Then: list(opened("09:00")), Refused: domain.InvalidTransition,
			},
			"close in the moment of the opening": {
				Kind: k, Given: open, Now: at("09:00"), When: domain.Step{To: domain.StatusClosed},
				Then: list(updated("09:00", domain.CauseHand, `closeAt null "@09:00"`), closed(k, "09:00"), map[bool][]domain.Event{true: list(completed("09:00"))}[k == domain.KindQueue]),
			},
			"a stream that is ahead of the clock is closed at its own time": {
				Kind: k, Given: open, Now: at("07:00"), When: domain.Step{To: domain.StatusClosed},
				Then: list(updated("09:00", domain.CauseHand, `closeAt null "@09:00"`), closed(k, "09:00"), map[bool][]domain.Event{true: list(completed("09:00"))}[k == domain.KindQueue]),
			},
		}
		if k != domain.KindQueue {
			name := map[domain.Kind]string{domain.KindDraw: "drawAt", domain.KindAuction: "settleAt"}[k]
			s["open is refused when the end would be before it"] = domaintest.Scenario{
				Kind: k, Given: list(created(k, "08:00", nil)), Now: at("12:30"), When: domain.Step{To: domain.StatusOpen},
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "must be after openAt")},
			}
		}
		return s
	})
}

func TestDraftAndScheduled(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		draft := list(created(k, "08:00", times("", "11:00")))
		planned := list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00"))
		return map[string]domaintest.Scenario{
			"openAt makes a DRAFT SCHEDULED": {
				Kind: k, Given: draft, Now: at("08:10"), When: update(`{"openAt": "@09:00"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `openAt null "@09:00"`), scheduled("08:10")),
			},
			"a past openAt opens a DRAFT": {
				Kind: k, Given: draft, Now: at("10:00"), When: update(`{"openAt": "@09:00"}`),
				Then: list(updated("10:00", domain.CauseUpdate, `openAt null "@09:00"`), scheduled("10:00"), opened("10:00")),
			},
			"past times run a DRAFT through": {
				Kind: k, Given: draft, Now: at("13:00"), When: update(`{"openAt": "@09:00"}`),
				Then: list(updated("13:00", domain.CauseUpdate, `openAt null "@09:00"`), scheduled("13:00"), opened("13:00"), closed(k, "13:00"), end(k, "13:00")),
			},
			"clearing openAt makes it DRAFT again": {
				Kind: k, Given: planned, Now: at("08:10"), When: update(`{"openAt": null}`),
				Then: list(updated("08:10", domain.CauseUpdate, `openAt "@09:00" null`), unscheduled("08:10")),
			},
			"DRAFT again, it waits for no time": {
				Kind: k, Given: list(planned, updated("08:10", domain.CauseUpdate, `openAt "@09:00" null`), unscheduled("08:10")), Now: at("10:00"),
			},
			"DRAFT again, it can be SCHEDULED again": {
				Kind: k, Given: list(planned, updated("08:15", domain.CauseUpdate, `openAt "@09:00" null`), unscheduled("08:15")), Now: at("08:20"),
				When: update(`{"openAt": "@10:00"}`),
				Then: list(updated("08:20", domain.CauseUpdate, `openAt null "@10:00"`), scheduled("08:20")),
			},
			"a later openAt leaves it SCHEDULED": {
				Kind: k, Given: planned, Now: at("08:10"), When: update(`{"openAt": "@10:00"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `openAt "@09:00" "@10:00"`)),
			},
			"a past openAt opens it, dated at the update": {
				Kind: k, Given: planned, Now: at("08:10"), When: update(`{"openAt": "@07:00"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `openAt "@09:00" "@07:00"`), opened("08:10")),
			},
			"closeAt can be cleared": {
				Kind: k, Given: planned, Now: at("08:10"), When: update(`{"closeAt": null}`),
				Then: list(updated("08:10", domain.CauseUpdate, `closeAt "@11:00" null`)),
			},
		}
	})
}

func TestScheduleWhileOpen(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		open := list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00"), opened("09:00"))
		s := map[string]domaintest.Scenario{
			"closeAt moves forward": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"closeAt": "@11:30"}`),
				Then: list(updated("10:00", domain.CauseUpdate, `closeAt "@11:00" "@11:30"`)),
			},
			"closeAt moves back": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"closeAt": "@10:30"}`),
				Then: list(updated("10:00", domain.CauseUpdate, `closeAt "@11:00" "@10:30"`)),
			},
			"closeAt moves to now and closes": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"closeAt": "@10:00"}`),
				Then: list(updated("10:00", domain.CauseUpdate, `closeAt "@11:00" "@10:00"`), closed(k, "10:00"), map[bool][]domain.Event{true: list(completed("10:00"))}[k == domain.KindQueue]),
			},
			"closeAt does not move into the past": {
				Kind: k, Given: open, Now: at("10:00:00.001"), When: update(`{"closeAt": "@10:00"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("closeAt", "may not be moved into the past")},
			},
			"the past is what the stream says, not a clock that runs back": {
				Kind: k, Given: open, Now: at("07:00"), When: update(`{"closeAt": "@08:30"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("closeAt", "may not be moved into the past")},
			},
			"closeAt is not cleared": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"closeAt": null}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("closeAt", "may not be cleared once open")},
			},
			"closeAt that was null stays null": {
				Kind: k, Given: list(created(k, "08:00", times("09:00", "")), scheduled("08:00"), opened("09:00")),
				Now: at("10:00"), When: update(`{"closeAt": null}`),
			},
			"closeAt that was null is set": {
				Kind: k, Given: list(created(k, "08:00", times("09:00", "")), scheduled("08:00"), opened("09:00")),
				Now: at("10:00"), When: update(`{"closeAt": "@11:00"}`),
				Then: list(updated("10:00", domain.CauseUpdate, `closeAt null "@11:00"`)),
			},
			"openAt is frozen": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"openAt": "@10:30"}`),
				Refused: domain.UpdateOpen, Details: []domain.Detail{problem("openAt", "is frozen once open")},
			},
			"openAt is not cleared": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"openAt": null}`),
				Refused: domain.UpdateOpen, Details: []domain.Detail{problem("openAt", "is frozen once open")},
			},
			"an openAt that stays is no change": {
				Kind: k, Given: open, Now: at("10:00"), When: update(`{"openAt": "@09:00"}`),
			},
		}
		if k == domain.KindQueue {
			return s
		}
		name := map[domain.Kind]string{domain.KindDraw: "drawAt", domain.KindAuction: "settleAt"}[k]
		s["the end moves forward"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"` + name + `": "@13:00"}`),
			Then: list(updated("10:00", domain.CauseUpdate, name+` "@12:00" "@13:00"`)),
		}
		s["the end moves back to the close"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"` + name + `": "@11:00"}`),
			Then: list(updated("10:00", domain.CauseUpdate, name+` "@12:00" "@11:00"`)),
		}
		s["the end does not move before the close"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"` + name + `": "@10:59"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "must not be before closeAt")},
		}
		s["the end does not move into the past"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"` + name + `": "@09:59"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "may not be moved into the past")},
		}
		s["the end is never null"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"` + name + `": null}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "may not be null")},
		}
		s["close and end move to now and all is over"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"closeAt": "@10:00", "` + name + `": "@10:00"}`),
			Then: list(updated("10:00", domain.CauseUpdate, `closeAt "@11:00" "@10:00"`, name+` "@12:00" "@10:00"`), closed(k, "10:00"), end(k, "10:00")),
		}
		return s
	})
}

func TestOrderOfTimes(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		closeAfterOpen := problem("closeAt", "must be after openAt")
		s := map[string]domaintest.Scenario{
			"closeAt before openAt": {
				Kind: k, Now: at("08:00"), When: create(k, `{"openAt": "@09:00", "closeAt": "@08:59"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{closeAfterOpen},
			},
			"closeAt at openAt": {
				Kind: k, Now: at("08:00"), When: create(k, `{"openAt": "@09:00", "closeAt": "@09:00"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{closeAfterOpen},
			},
			"an update that puts openAt behind closeAt": {
				Kind: k, Given: list(created(k, "08:00", times("", "11:00"))), Now: at("08:10"), When: update(`{"openAt": "@11:00"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("openAt", "must be before closeAt")},
			},
			"an update of both that puts closeAt before openAt": {
				Kind: k, Given: list(created(k, "08:00", times("", "11:00"))), Now: at("08:10"), When: update(`{"openAt": "@11:00", "closeAt": "@10:00"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{closeAfterOpen},
			},
			"a step by hand that would open it behind closeAt": {
				Kind: k, Given: list(created(k, "08:00", times("", "09:00"))), Now: at("09:00"), When: domain.Step{To: domain.StatusOpen},
				Refused: domain.ValidationFailed, Details: []domain.Detail{closeAfterOpen},
			},
		}
		if k == domain.KindQueue {
			return s
		}
		name := map[domain.Kind]string{domain.KindDraw: "drawAt", domain.KindAuction: "settleAt"}[k]
		s["closeAt behind the end"] = domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: create(k, `{"closeAt": "@12:01"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "must not be before closeAt")},
		}
		s["closeAt at the end"] = domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: create(k, `{"closeAt": "@12:00"}`),
			Then: list(created(k, "08:00", times("", "12:00"))),
		}
		s["without closeAt the end is after openAt"] = domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: create(k, `{"openAt": "@12:00"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "must be after openAt")},
		}
		draft := list(created(k, "08:00", times("", "11:00")))
		s["an update that moves closeAt behind the end"] = domaintest.Scenario{
			Kind: k, Given: draft, Now: at("08:10"), When: update(`{"closeAt": "@12:01", "` + name + `": "@12:00"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("closeAt", "must not be after "+name)},
		}
		s["an update that moves the end before closeAt"] = domaintest.Scenario{
			Kind: k, Given: draft, Now: at("08:10"), When: update(`{"` + name + `": "@10:59"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "must not be before closeAt")},
		}
		s["an update that moves openAt behind all"] = domaintest.Scenario{
			Kind: k, Given: draft, Now: at("08:10"), When: update(`{"openAt": "@12:00"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("openAt", "must be before closeAt"), problem("openAt", "must be before "+name)},
		}
		s["the end is required"] = domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: create(k, `{"`+name+`": null}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "is required")},
		}
		return s
	})
}

func TestDelete_inEveryStatus(t *testing.T) {
	t.Parallel()
	allowed := map[domain.Status]bool{
		domain.StatusDraft: true, domain.StatusScheduled: true, domain.StatusCompleted: true, domain.StatusSettled: true,
	}
	for _, k := range domain.Kinds() {
		for _, status := range domain.Statuses() {
			given, ok := reach(k, status)
			if !ok {
				continue
			}
			s := domaintest.Scenario{Kind: k, Given: given, Now: given[len(given)-1].When(), When: domain.Delete{}}
			if allowed[status] {
				s.Then = []domain.Event{domain.Deleted{Stamp: domain.Stamp{At: s.Now}}}
			} else {
				s.Refused = domain.DeleteActive
			}
			t.Run(string(k)+" "+string(status), func(t *testing.T) {
				t.Parallel()
				s.Run(t)
			})
		}
	}
}

func TestWake(t *testing.T) {
	t.Parallel()
	for _, k := range domain.Kinds() {
		for status, want := range map[domain.Status]domain.Instant{
			domain.StatusDraft: 0, domain.StatusScheduled: at("09:00"), domain.StatusOpen: at("11:00"),
			domain.StatusClosed: at("12:00"), domain.StatusCompleted: 0, domain.StatusSettled: 0,
		} {
			given, ok := reach(k, status)
			if !ok {
				continue
			}
			if got := domaintest.Fold(t, k, given).Aggregate.Wake(); got != want {
				t.Errorf("%s %s wakes at %s, want %s", k, status, got, want)
			}
		}
		gone := list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00"), deleted("08:30"))
		if got := domaintest.Fold(t, k, gone).Aggregate.Wake(); got != 0 {
			t.Errorf("a deleted %s wakes at %s", k, got)
		}
		if got := domain.NewDistribution(k).Wake(); got != 0 {
			t.Errorf("a %s that was not created wakes at %s", k, got)
		}
	}
}

func TestOtherCommands(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		s := map[string]domaintest.Scenario{
			"a command of an organization": {
				Kind: k, Given: list(created(k, "08:00", nil)), Now: at("08:10"), When: domain.RevokeKey{},
				Refused: domain.InvalidTransition,
			},
		}
		if k != domain.KindDraw {
			s["entropy"] = domaintest.Scenario{
				Kind: k, Given: list(created(k, "08:00", nil)), Now: at("08:10"), When: supply("x"),
				Refused: domain.InvalidTransition,
			}
		}
		return s
	})
}
