"""Every live panel of the course. `live` is what they share, `pieces` what they are drawn with.

A notebook shows a static figure of the same thing in the cell before, so that paper and HTML lose
nothing, and then one panel:

    from helpers.widgets.scenes import Scenes
    Scenes(course.world("validation"))
"""
