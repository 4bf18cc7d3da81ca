"""Places of people and attackers: cities, networks and user agents, all drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class City:
    """A location as it appears in events, with its time zone and coordinates."""

    name: str
    """`CC-City`."""
    utc_minutes: int
    latitude: float
    longitude: float

    def distance_km(self, other: City) -> float:
        """Return the great-circle distance to another city.

        Examples
        --------
        >>> round(OFFICES[0].distance_km(OFFICES[4]), -2)
        900.0
        """
        a, b = math.radians(self.latitude), math.radians(other.latitude)
        turn = math.radians(other.longitude - self.longitude)
        cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(turn)
        return 6371.0 * math.acos(min(1.0, cosine))


OFFICES = (
    City("DE-Berlin", 60, 52.5, 13.4),
    City("DE-Munich", 60, 48.1, 11.6),
    City("FR-Paris", 60, 48.9, 2.4),
    City("NL-Amsterdam", 60, 52.4, 4.9),
    City("GB-London", 0, 51.5, -0.1),
    City("IE-Dublin", 0, 53.3, -6.3),
    City("US-New York", -300, 40.7, -74.0),
    City("US-Boston", -300, 42.4, -71.1),
    City("US-San Francisco", -480, 37.8, -122.4),
    City("US-Seattle", -480, 47.6, -122.3),
    City("IN-Bangalore", 330, 13.0, 77.6),
    City("IN-Pune", 330, 18.5, 73.9),
)
ELSEWHERE = (
    City("ES-Madrid", 60, 40.4, -3.7),
    City("PL-Warsaw", 60, 52.2, 21.0),
    City("SE-Stockholm", 60, 59.3, 18.1),
    City("AE-Dubai", 240, 25.2, 55.3),
    City("SG-Singapore", 480, 1.3, 103.8),
    City("JP-Tokyo", 540, 35.7, 139.7),
    City("AU-Sydney", 600, -33.9, 151.2),
    City("BR-Sao Paulo", -180, -23.6, -46.6),
    City("CA-Toronto", -300, 43.7, -79.4),
    City("US-Ashburn", -300, 39.0, -77.5),
    City("RO-Bucharest", 120, 44.4, 26.1),
    City("UA-Kyiv", 120, 50.5, 30.5),
    City("RU-Moscow", 180, 55.8, 37.6),
    City("TR-Istanbul", 180, 41.0, 29.0),
    City("NG-Lagos", 60, 6.5, 3.4),
    City("VN-Hanoi", 420, 21.0, 105.8),
    City("CN-Shenzhen", 480, 22.5, 114.1),
    City("ID-Jakarta", 420, -6.2, 106.8),
)
CITIES = OFFICES + ELSEWHERE


@dataclass(frozen=True, slots=True)
class Place:
    """The fields of an event that show where it came from."""

    address: str
    city: str
    hostname: str
    agent: str


_SYSTEMS = ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64")
_PHONES = (
    "Linux; Android 14; Pixel 8",
    "Linux; Android 13; SM-G991B",
    "iPhone; CPU iPhone OS 17_4 like Mac OS X",
)
ATTACK_TOOLS = (
    "python-requests/2.31.0",
    "Go-http-client/1.1",
    "curl/8.4.0",
    "libssh2_1.10.0",
    "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1)",
)


def browser(draw: Random, *, phone: bool = False, version: int | None = None) -> str:
    """Draw the user agent of a browser, by default of any version of the last year."""
    system = draw.choice(_PHONES if phone else _SYSTEMS)
    version = draw.randint(112, 124) if version is None else version
    if "iPhone" in system:
        engine = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
        return f"Mozilla/5.0 ({system}) {engine} Version/17.4 Mobile/15E148 Safari/604.1"
    if "Linux x86" in system and draw.random() < 0.5:
        return f"Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"
    mobile = " Mobile" if phone else ""
    engine = "AppleWebKit/537.36 (KHTML, like Gecko)"
    return f"Mozilla/5.0 ({system}) {engine} Chrome/{version}.0.0.0{mobile} Safari/537.36"


def public_address(draw: Random, network: str) -> str:
    """Draw an address from one of the three /16 blocks of a network, for example of one provider in one city."""
    prefix = Random(f"{network}:{draw.randrange(3)}")  # a str seed: the same in every process
    first = prefix.choice(
        [octet for octet in range(23, 217) if octet not in (100, 127, 169, 172, 192, 198, 203)]
    )
    return f"{first}.{prefix.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


def attacker_place(draw: Random, *, residential: bool = False, agent: str | None = None) -> Place:
    """Draw the place from which an attack comes: a rented server, or a home connection of a proxy service.

    Parameters
    ----------
    draw
        Source of the random numbers.
    residential
        Whether to draw a home connection and a browser; otherwise a hosting network and a tool.
    agent
        User agent of the events; None draws a suitable one.
    """
    city = draw.choice(CITIES)
    address = public_address(draw, f"{'isp' if residential else 'hosting'}:{city.name}")
    shown = agent or (browser(draw) if residential else draw.choice(ATTACK_TOOLS))
    hostname = f"desktop-{draw.getrandbits(28):07x}" if residential else f"vps-{draw.getrandbits(20):05x}"
    return Place(address, city.name, hostname, shown)
