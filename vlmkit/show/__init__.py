"""Pictures of what a model sees of a photograph or a film.

sight     what a model sees: pixels of every view, and their grids
mosaic    views as a picture, patches and visual tokens moved apart
words     captions, numbers and the legend
picture   the page of a photograph
film      the page of a film
points    what is said of a picture, marked on it
"""

from vlmkit.show.picture import draw
from vlmkit.show.sight import Sight, placed, see

__all__ = ["Sight", "draw", "placed", "see"]
