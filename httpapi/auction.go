package httpapi

import "github.com/lotline/lotline/domain"

// auctionAPI is what auctions add to the calls that every kind has.
var auctionAPI = kindAPI{
	steps: []stepCall{{"settle", domain.StatusSettled}},
}
