// Verifies an access token of Latchkey and prints whose it is: go run . TOKEN
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

func verify(token, issuer string, keys keyfunc.Keyfunc) (*jwt.RegisteredClaims, error) {
	claims := new(jwt.RegisteredClaims)
	parsed, err := jwt.ParseWithClaims(token, claims, keys.Keyfunc,
		jwt.WithValidMethods([]string{"ES256"}),
		jwt.WithIssuer(issuer),
		jwt.WithAudience(issuer), // or what LATCHKEY_AUDIENCE says
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(5*time.Second))
	if err != nil {
		return nil, err
	}
	if parsed.Header["typ"] != "at+jwt" || claims.Subject == "" { // golang-jwt looks at neither
		return nil, errors.New("not an access token")
	}
	return claims, nil
}

func main() {
	issuer := cmp.Or(os.Getenv("ISSUER"), "http://localhost:3000")
	// Make it once: it keeps the keys, and fetches them anew when a token names one that it has not seen.
	keys, err := keyfunc.NewDefaultOverrideCtx(context.Background(), []string{issuer + "/.well-known/jwks.json"},
		keyfunc.Override{RefreshInterval: 5 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := verify(os.Args[1], issuer, keys)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.Subject)
}
