"""A made-up log in MovieLens 1M's format: people rate page by page, from lists of what is popular, of a genre, alike.

Popularity is skewed as there, tastes follow genres and finer themes that titles hint at, most users come once and
rate dozens of films, and one film in ten comes out while the log runs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
THEMES = (  # words of titles, a theme a row
    ("Vault", "Getaway", "Diamond", "Score", "Safe"),
    ("Tide", "Reef", "Harbour", "Captain", "Storm"),
    ("Orbit", "Nebula", "Colony", "Signal", "Mars"),
    ("Verdict", "Witness", "Jury", "Appeal", "Oath"),
    ("Campus", "Recess", "Prom", "Teacher", "Class"),
    ("Haunting", "Crypt", "Whisper", "Cellar", "Possession"),
    ("Highway", "Drifter", "Diner", "Mile", "Truck"),
    ("Crown", "Duchess", "Castle", "Heir", "Throne"),
    ("Ring", "Knockout", "Champion", "Corner", "Bout"),
    ("Agent", "Cipher", "Embassy", "Defector", "Border"),
    ("Jazz", "Ballad", "Encore", "Choir", "Trumpet"),
    ("Harvest", "Prairie", "Barn", "Drought", "Horse"),
    ("Android", "Circuit", "Machine", "Clone", "Mainframe"),
    ("Bride", "Vows", "Groom", "Honeymoon", "Bouquet"),
    ("Jaguar", "Expedition", "Temple", "River", "Canopy"),
    ("Battalion", "Trench", "Sergeant", "Furlough", "Siege"),
)
FIRST = ("The", "Last", "Broken", "Return of the", "Silent", "Golden", "A", "Midnight", "Lost", "My")
LAST = ("", "Night", "Song", "of Fire", "II", "Story", "in Winter", "Boys", "Game", "Road")
WIDTH = 24  # of tastes
PAGE = 15  # films rated from one list at most
START_S, DAY_S, DAYS = 956_703_932, 86_400, 900.0


@dataclass(frozen=True)
class Films:
    """The catalogue: what is written of a film, and what is true of it."""

    titles: list[str]
    genres: NDArray[np.bool_]  # [N, len(GENRES)]
    vectors: Floats  # [N, WIDTH], of length near 1
    appeal: Floats  # [N] log of how well known it is
    quality: Floats  # [N] in stars
    released: Floats  # [N] day of the log, -1 before it began


@dataclass(frozen=True)
class Rating:
    """What a user says of a film."""

    film: int
    stars: int
    second: int  # of the sitting


def make_films(count: int, dice: np.random.Generator) -> Films:
    """Films of one theme and of one to three of the genres that go with it."""
    theme = dice.integers(len(THEMES), size=count)
    of_genre = dice.normal(size=(len(GENRES), WIDTH)) / WIDTH**0.5
    of_theme = dice.normal(size=(len(THEMES), WIDTH)) / WIDTH**0.5
    genres = np.zeros((count, len(GENRES)), dtype=bool)
    titles = []
    for film, own in enumerate(theme.tolist()):
        genres[film, (own * 5 + dice.integers(0, 4, dice.integers(1, 4))) % len(GENRES)] = True
        title = f"{dice.choice(FIRST)} {dice.choice(THEMES[own])} {dice.choice(LAST)}".strip()
        titles.append(f"{title} ({1930 + int(70 * dice.beta(4, 1))})")
    own_way = 0.5 * dice.normal(size=(count, WIDTH)) / WIDTH**0.5
    quality = 0.5 * dice.normal(size=count)
    return Films(
        titles,
        genres,
        (genres @ of_genre) / genres.sum(1, keepdims=True) + of_theme[theme] + own_way,
        1.3 * dice.normal(size=count) + quality,
        quality,
        np.where(dice.random(count) < 0.1, dice.uniform(0, DAYS, count), -1.0),
    )


def rate(films: Films, taste: Floats, day: float, wanted: int, dice: np.random.Generator) -> list[Rating]:
    """One sitting of a user, who has seen what is well known and to the taste, and rates what the lists show of it."""
    fit = films.vectors @ taste  # [N]
    out = films.released <= day
    left = out & (dice.normal(size=len(fit)) + films.appeal + 1.2 * fit > 0.8)
    rated: list[Rating] = []
    second, liked = 0, -1
    while len(rated) < wanted and left.any() and dice.random() > 0.02:
        page = _list(films, liked, dice)
        page = page[out[page]][: 3 * PAGE]
        second += int(dice.integers(15, 90))
        for film in page[left[page]][:PAGE].tolist():
            stars = 3.1 + films.quality[film] + 0.8 * fit[film] + 0.7 * dice.normal()
            rated.append(Rating(film, int(np.clip(np.rint(stars), 1, 5)), second))
            second += int(dice.random() < 0.4)
            left[film] = False
            liked = film if stars >= 4.0 or liked < 0 else liked
    return rated[:wanted]


def _list(films: Films, liked: int, dice: np.random.Generator) -> NDArray[np.int64]:
    """What the site shows, first things first: half the time films like one that was liked. int64 [N]."""
    kind = dice.random()
    order = films.appeal + 0.5 * dice.normal(size=len(films.appeal))
    if kind < 0.5 and liked >= 0:
        order = order - 0.7 * films.appeal + 3.0 * films.vectors @ films.vectors[liked]
    elif kind < 0.8:
        order = np.where(films.genres[:, dice.integers(len(GENRES))], order, order - 100.0)
    return np.argsort(-order)


def write_movie_log(folder: Path, num_users: int, num_films: int, seed: int) -> None:
    """Write ``ratings.dat`` and ``movies.dat``."""
    dice = np.random.default_rng(seed)
    films = make_films(num_films, dice)
    rows: list[tuple[int, int, int, int]] = []
    for user in range(num_users):
        taste = 0.75 * dice.normal(size=WIDTH)
        day, done = float(dice.uniform(0, DAYS)), set[int]()
        for _ in range(int(dice.geometric(0.6))):
            wanted = int(np.clip(dice.lognormal(3.6, 0.8), 8, 400))
            for rating in rate(films, taste, day, wanted, dice):
                if rating.film not in done:
                    done.add(rating.film)
                    time = START_S + int(day * DAY_S) + rating.second
                    rows.append((time, user + 1, rating.film + 1, rating.stars))
            day += float(dice.exponential(40.0))
            if day > DAYS:
                break
    rows.sort(key=lambda row: row[0])  # stable: a user's films stay in order
    ratings = "".join(f"{user}::{film}::{stars}::{time}\n" for time, user, film, stars in rows)
    (folder / "ratings.dat").write_text(ratings)
    names = ("|".join(np.array(GENRES)[own]) for own in films.genres)
    shelf = enumerate(zip(films.titles, names, strict=True), start=1)
    movies = "".join(f"{film}::{title}::{genres}\n" for film, (title, genres) in shelf)
    (folder / "movies.dat").write_text(movies, encoding="latin-1")
