package domain

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Amount is a sum of money in ten-thousandths of its currency's unit, which is
// finer than any ISO 4217 minor unit, so that sums of one currency compare and
// add as integers. Zero means "not set" and is null in JSON; every other value
// is a JSON number ("100.5"). An Amount never passes through a float.
type Amount int64

// amountScale is how many Amounts make one unit of a currency.
const (
	amountScale    = 10_000
	amountDecimals = 4
)

var amountPattern = regexp.MustCompile(`^(0|[1-9][0-9]*)(?:\.([0-9]+))?$`)

// ParseAmount reads a positive decimal without an exponent: at most 12 digits
// before the point, and at most four significant digits after it. The error's
// text is meant for the client that sent the amount.
func ParseAmount(s string) (Amount, error) {
	m := amountPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("must be a positive decimal number without an exponent")
	}
	if len(m[1]) > 12 {
		return 0, errors.New("must have at most 12 digits before the point")
	}
	fraction := strings.TrimRight(m[2], "0")
	if len(fraction) > amountDecimals {
		return 0, errors.New("is finer than the currency's minor unit")
	}
	fraction += strings.Repeat("0", amountDecimals-len(fraction))
	n, err := strconv.ParseInt(m[1]+fraction, 10, 64)
	if err != nil {
		return 0, errors.New("must be a positive decimal number without an exponent")
	}
	if n == 0 {
		return 0, errors.New("must be greater than zero")
	}
	return Amount(n), nil
}

func (a Amount) String() string {
	if a%amountScale == 0 {
		return strconv.FormatInt(int64(a/amountScale), 10)
	}
	s := fmt.Sprintf("%d.%04d", a/amountScale, a%amountScale)
	return strings.TrimRight(s, "0")
}

// MarshalJSON writes null or a number.
func (a Amount) MarshalJSON() ([]byte, error) { return a.appendJSON(nil), nil }

func (a Amount) appendJSON(dst []byte) []byte {
	if a == 0 {
		return append(dst, "null"...)
	}
	return append(dst, a.String()...)
}

// UnmarshalJSON reads null, a number, or a string that holds a decimal.
func (a *Amount) UnmarshalJSON(raw []byte) error {
	s := string(raw)
	if s == "null" {
		*a = 0
		return nil
	}
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	got, err := ParseAmount(s)
	if err != nil {
		return err
	}
	*a = got
	return nil
}

// Currency is an ISO 4217 code.
type Currency string

// currencies lists the active codes of ISO 4217 that money can be counted in,
// with the number of decimals of their minor units. Metals, bond units and codes
// for testing are left out.
var currencies = func() map[Currency]int {
	table := map[Currency]int{}
	for decimals, codes := range map[int]string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
		2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK " +
			"DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT " +
			"LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN " +
			"QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS " +
			"VED VES WST XCD XCG YER ZAR ZMW ZWG",
		3: "BHD IQD JOD KWD LYD OMR TND",
		4: "CLF UYW",
	} {
		for code := range strings.FieldsSeq(codes) {
			table[Currency(code)] = decimals
		}
	}
	return table
}()

// Known reports whether c is an active ISO 4217 code.
func (c Currency) Known() bool {
	_, ok := currencies[c]
	return ok
}

// MinorUnit is the smallest amount of c: 0.01 for USD, 1 for JPY.
func (c Currency) MinorUnit() Amount {
	unit := Amount(amountScale)
	for range currencies[c] {
		unit /= 10
	}
	return unit
}
