package domain

// AuctionType says how an auction finds its price.
type AuctionType string

// The types of auctions.
const (
	English AuctionType = "english" // bids rise
	Dutch   AuctionType = "dutch"   // the price falls until somebody takes it
)

// AuctionSettings are an auction's own fields. Amounts are in CurrencyCode.
type AuctionSettings struct {
	SettleAt                 Instant     `json:"settleAt"`
	StartingBid              Amount      `json:"startingBid"`
	MinimumIncrement         Amount      `json:"minimumIncrement"`
	ReservePrice             Amount      `json:"reservePrice"`
	BuyNowPrice              Amount      `json:"buyNowPrice"`
	CurrencyCode             Currency    `json:"currencyCode"`
	WinnerCount              Count       `json:"winnerCount"`
	AuctionType              AuctionType `json:"auctionType"`
	AutoExtendSeconds        Count       `json:"autoExtendSeconds"`
	MaxExtensions            Count       `json:"maxExtensions"`
	StartPrice               Amount      `json:"startPrice"`
	FloorPrice               Amount      `json:"floorPrice"` // null: the price falls to one minor unit
	PriceDropAmount          Amount      `json:"priceDropAmount"`
	PriceDropIntervalSeconds Count       `json:"priceDropIntervalSeconds"`
}

// Auction gives access to the highest bids. Its zero value is an auction that
// has not been created. Not safe for concurrent use.
type Auction struct {
	Lifecycle
	noParticipants
	AuctionSettings
}

// Kind is KindAuction.
func (a *Auction) Kind() Kind { return KindAuction }

func (a *Auction) fields() []field {
	return a.allFields(
		field{"settleAt", instant{&a.SettleAt, &a.TimeZone}, required | timing},
		field{"startingBid", money{&a.StartingBid}, nullable | untilEntered},
		field{"minimumIncrement", money{&a.MinimumIncrement}, nullable | untilEntered},
		field{"reservePrice", money{&a.ReservePrice}, nullable | untilEntered},
		field{"buyNowPrice", money{&a.BuyNowPrice}, nullable | untilEntered},
		field{"currencyCode", currency{&a.CurrencyCode}, untilOpen},
		field{"winnerCount", count(&a.WinnerCount), untilEntered},
		field{"auctionType", choice[AuctionType]{&a.AuctionType, []AuctionType{English, Dutch}}, untilOpen},
		field{"autoExtendSeconds", seconds(&a.AutoExtendSeconds), nullable | untilEntered},
		field{"maxExtensions", count(&a.MaxExtensions), nullable | untilEntered},
		field{"startPrice", money{&a.StartPrice}, nullable | untilOpen},
		field{"floorPrice", money{&a.FloorPrice}, nullable | untilOpen},
		field{"priceDropAmount", money{&a.PriceDropAmount}, nullable | untilOpen},
		field{"priceDropIntervalSeconds", seconds(&a.PriceDropIntervalSeconds), nullable | untilOpen},
	)
}

func (a *Auction) preset(d Defaults) {
	a.CurrencyCode, a.WinnerCount, a.AuctionType = d.CurrencyCode, 1, English
}

func (a *Auction) check(wrong *clashes) {
	a.checkOrder(wrong, "settleAt", a.SettleAt)
	a.checkType(wrong)
	for _, f := range a.fields() {
		if m, ok := f.value.(money); ok && *m.p%a.CurrencyCode.MinorUnit() != 0 {
			wrong.add(f.name, "is finer than the minor unit of %s", a.CurrencyCode)
		}
	}
	ascending(wrong, "reservePrice", a.ReservePrice, "startingBid", a.StartingBid)
	ascending(wrong, "buyNowPrice", a.BuyNowPrice, "reservePrice", a.ReservePrice)
	if a.ReservePrice == 0 {
		ascending(wrong, "buyNowPrice", a.BuyNowPrice, "startingBid", a.StartingBid)
	}
	ascending(wrong, "startPrice", a.StartPrice, "floorPrice", a.FloorPrice)
}

// checkType finds fields that belong to the other type of auction, and fields that a
// dutch auction lacks. It reports them also when a request changes only the type: the
// request has to bring them along.
func (a *Auction) checkType(wrong *clashes) {
	type own struct {
		name   string
		set    bool
		needed bool
	}
	english := []own{
		{"startingBid", a.StartingBid != 0, false},
		{"minimumIncrement", a.MinimumIncrement != 0, false},
		{"reservePrice", a.ReservePrice != 0, false},
		{"buyNowPrice", a.BuyNowPrice != 0, false},
		{"autoExtendSeconds", a.AutoExtendSeconds != 0, false},
		{"maxExtensions", a.MaxExtensions != 0, false},
	}
	dutch := []own{
		{"startPrice", a.StartPrice != 0, true},
		{"floorPrice", a.FloorPrice != 0, false},
		{"priceDropAmount", a.PriceDropAmount != 0, true},
		{"priceDropIntervalSeconds", a.PriceDropIntervalSeconds != 0, true},
	}
	mine, others := english, dutch
	if a.AuctionType == Dutch {
		mine, others = dutch, english
	}
	for _, o := range others {
		if o.set {
			wrong.add(o.name, "does not go with auctionType %s", a.AuctionType)
		}
	}
	for _, o := range mine {
		if o.needed && !o.set {
			wrong.add(o.name, "is required with auctionType %s", a.AuctionType)
		}
	}
}

// ascending finds a price that is below its lower bound. A price that is not set has no
// bound.
func ascending(wrong *clashes, name string, price Amount, belowName string, below Amount) {
	if price != 0 && below != 0 && price < below {
		wrong.between(name, "must not be below", belowName, "must not be above")
	}
}

func (a *Auction) created(s Stamp, _ Create) Event {
	return &AuctionCreated{s, a.Identity, a.Common, a.AuctionSettings}
}

// AppendJSON appends the auction as an admin sees it.
func (a *Auction) AppendJSON(dst []byte) []byte { return appendFields(dst, a.fields()) }

// AppendPublicJSON appends the auction as everybody may see it. It does not show the
// reserve price, only whether a bid meets it. Nobody can bid yet.
func (a *Auction) AppendPublicJSON(dst []byte) []byte {
	start := &a.StartingBid
	if a.AuctionType == Dutch {
		start = &a.StartPrice
	}
	return appendFields(dst, a.publicFields(a,
		field{"settleAt", instant{&a.SettleAt, &a.TimeZone}, 0},
		field{"startingPrice", money{start}, 0},
		field{"reserveMet", readOnly(func(dst []byte) []byte { return append(dst, "false"...) }), computed},
		field{"minimumBidIncrement", money{&a.MinimumIncrement}, 0},
		field{"winnerCount", count(&a.WinnerCount), 0},
		field{"currentHighBid", readOnly(func(dst []byte) []byte { return append(dst, "null"...) }), computed},
		field{"currencyCode", currency{&a.CurrencyCode}, 0},
	))
}

// Secrets names the auction's secrets.
func (a *Auction) Secrets() []SecretField { return a.secrets() }

// Fork returns a copy that can evolve without changing a.
func (a *Auction) Fork() Aggregate {
	c := *a
	return &c
}

// Decide implements Aggregate.
func (a *Auction) Decide(now Instant, cmd Command) ([]Event, error) {
	if _, ok := cmd.(Advance); ok && !a.Deleted {
		return a.due(now), nil
	}
	return a.decide(now, cmd, a)
}

// closesAt is when bidding ends: at settleAt when there is no closeAt.
func (a *Auction) closesAt() Instant { return earlier(a.CloseAt, a.SettleAt) }

func (a *Auction) due(now Instant) []Event {
	switch {
	case a.Status == StatusOpen && a.closesAt() <= now:
		return []Event{Closed{a.dated(a.closesAt())}}
	case a.Status == StatusClosed && a.SettleAt <= now:
		return []Event{Settled{a.dated(a.SettleAt), 0}}
	}
	return a.Lifecycle.due(now)
}

// Wake implements Aggregate.
func (a *Auction) Wake() Instant {
	switch {
	case a.Deleted:
		return 0
	case a.Status == StatusOpen:
		return a.closesAt()
	case a.Status == StatusClosed:
		return a.SettleAt
	}
	return a.wake()
}

// stepTime adds the step from CLOSED to SETTLED.
func (a *Auction) stepTime(to Status) *Instant {
	if to == StatusSettled && a.Status == StatusClosed {
		return &a.SettleAt
	}
	return a.Lifecycle.stepTime(to)
}

// Evolve implements Aggregate.
func (a *Auction) Evolve(e Event) error {
	if err := a.checkNext(e); err != nil {
		return err
	}
	switch e := e.(type) {
	case *AuctionCreated:
		a.AuctionSettings = e.AuctionSettings
		return a.begin(e, e.Identity, e.Common, KindAuction)
	case Closed:
		return a.move(e, StatusClosed, a.closesAt(), StatusOpen)
	case Settled:
		return a.move(e, StatusSettled, a.SettleAt, StatusClosed)
	}
	return a.evolve(e, a)
}
